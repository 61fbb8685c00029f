// The types are those of the package that uPlot.esm.js was copied from.
export { default } from "uplot"
