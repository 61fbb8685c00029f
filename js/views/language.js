// @ts-check
// The setting for the pack's language. The page sends its language to the server, which then reports and fails in it.
import { app } from "../../../scripts/app.js"
import { LANGUAGE_SETTING, languageChanged, onLanguage } from "../common/i18n.js"
import { onConnected, sendLanguage } from "../common/server.js"
import { FOLLOW_PAGE } from "../logic/text.js"

app.registerExtension({
  name: "subject_trainer.language",
  settings: [
    {
      id: LANGUAGE_SETTING,
      name: "Language of panels and messages · Мова панелей і повідомлень",
      tooltip: "Panels that are open follow when the page is loaded again. · Відкриті панелі зміняться після перезавантаження сторінки.",
      category: ["Subject Trainer", "Language", "Panels and messages"],
      type: "combo",
      options: [
        { text: "As the page · Як сторінка", value: FOLLOW_PAGE },
        { text: "English", value: "en" },
        { text: "Українська", value: "uk" },
      ],
      defaultValue: FOLLOW_PAGE,
      onChange: () => setTimeout(languageChanged), // ComfyUI calls this before the setting has its new value.
    },
  ],
  setup() {
    onConnected(sendLanguage)
    onLanguage(sendLanguage)
  },
})
