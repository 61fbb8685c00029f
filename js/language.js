// The setting for the pack's language. The server is told it, so that reports and errors come in it.
import { app } from "../../scripts/app.js"
import { onConnected, tellLanguage } from "./server.js"
import { AS_PAGE, SETTING } from "./words.js"

app.registerExtension({
  name: "subject_trainer.language",
  settings: [
    {
      id: SETTING,
      name: "Language of panels and messages · Мова панелей і повідомлень",
      tooltip: "Panels that are open follow when the page is loaded again. · Відкриті панелі зміняться після перезавантаження сторінки.",
      category: ["Subject Trainer", "Language", "Panels and messages"],
      type: "combo",
      options: [
        { text: "As the page · Як сторінка", value: AS_PAGE },
        { text: "English", value: "en" },
        { text: "Українська", value: "uk" },
      ],
      defaultValue: AS_PAGE,
      onChange: () => setTimeout(tellLanguage), // it is called before the setting has its new value
    },
  ],
  setup() {
    onConnected(tellLanguage)
  },
})
