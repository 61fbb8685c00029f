// @ts-check
// The pack's nodes that show something on the page, by the ids of their classes.

export const DATASET = "DatasetLoader"
export const CAPTION = "CaptionWithToken"
export const DREAMBOOTH = "DreamBoothTrain"
export const LOADING = "LoadFinetuned"
export const TRAINING = [DREAMBOOTH, "TextualInversionTrain"]
export const EVALUATING = "EvaluateSubject"
export const ALL = [DATASET, CAPTION, ...TRAINING, LOADING, EVALUATING]

/** Of a training node: its last run, which is shown again after a reload, as it is saved with the node. */
export const RUN_PROPERTY = "subject_trainer_run"
