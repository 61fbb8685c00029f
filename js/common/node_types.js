// @ts-check
// The pack's nodes that show something on the page, by the ids of their classes.

export const DATASET = "DatasetLoader"
export const CAPTION = "CaptionWithToken"
export const DREAMBOOTH = "DreamBoothTrain"
export const LOADING = "LoadFinetuned"
export const TRAINING = [DREAMBOOTH, "TextualInversionTrain"]
export const EVALUATING = "EvaluateSubject"
export const ALL = [DATASET, CAPTION, ...TRAINING, LOADING, EVALUATING]
