// What js/ uses of ComfyUI's page (frontend 1.47) and of LiteGraph, which it draws the graph with.

declare namespace Comfy {
  interface Widget {
    name: string
    type?: string
    value: any
    label?: string
    hidden?: boolean
    disabled?: boolean
    serialize?: boolean
    options?: {
      advanced?: boolean
      canvasOnly?: boolean
      hidden?: boolean
      max?: number
      precision?: number
      round?: number
      step2?: number
      values?: string[]
      getOptionLabel?: (value: string | null) => string
    }
    callback?(value: any, ...more: any[]): void
  }

  interface Node {
    comfyClass: string
    type: string
    mode: number
    size: [number, number]
    /** Left, top, width and height, the title among them. */
    boundingRect: Iterable<number>
    properties: Record<string, any>
    showAdvanced?: boolean
    widgets?: Widget[]
    inputs?: { name: string; type?: unknown; link: number | null }[]
    graph?: Graph | null
    subgraph?: Graph
    addWidget(type: string, name: string, value: unknown, callback: () => void, options: object): Widget
    addDOMWidget(name: string, type: string, element: HTMLElement, options: object): Widget
    configure(saved: object): void
    computeSize(): [number, number]
    setSize(size: [number, number]): void
    hideOutputImages?: boolean
    onDrawBackground?(): void
    onDragOver?(event: DragEvent): boolean
    onDragDrop?(event: DragEvent): boolean
    setDirtyCanvas(foreground: boolean, background?: boolean): void
    getSlotFromWidget(widget: Widget): { link: number | null } | undefined
  }

  interface Graph {
    id: string
    nodes: Node[]
    extra?: Record<string, any>
    getNodeById(id: number): Node | null | undefined
    getLink?(id: number): { origin_id: number; origin_slot: number } | undefined
    beforeChange(): void
    afterChange(): void
  }

  interface NodeDef {
    name: string
    input?: { required?: Record<string, [type: unknown, options?: any]> }
  }

  interface Extension {
    name: string
    settings?: object[]
    setup?(): void
    nodeCreated?(node: Node): void
    beforeRegisterNodeDef?(nodeType: { prototype: object }, nodeData: NodeDef): void
    afterConfigureGraph?(): void
  }

  /** Tracks the changes of an open workflow, and stays the same object while its tab is open. */
  interface Tracker {
    workflow: { path: string; isTemporary?: boolean }
    activeState: { id?: string; nodes: unknown }
  }

  interface Workflows {
    activeWorkflow?: { changeTracker: Tracker | null } | null
    openWorkflows: { changeTracker: Tracker | null }[]
  }

  interface App {
    /** What draws the graph; undefined until the page has one, like the graph that is open. */
    canvas?: Record<"processMouseWheel" | "processMouseDown" | "processMouseMove" | "processMouseUp", (event: Event) => void> & {
      canvas: HTMLCanvasElement
      ds: { scale: number; offset: number[] }
      setDirty(foreground: boolean, background: boolean): void
    }
    graph?: Graph
    /** Undefined until the page has set it up. */
    extensionManager?: { setting?: { get(id: string): any }; workflow?: Workflows }
    loadGraphData(graph?: any, ...more: any[]): Promise<void>
    registerExtension(extension: Extension): void
    queuePrompt(number: number, batchCount: number): Promise<boolean>
  }

  interface Api {
    /** Undefined until the page has its connection. */
    clientId?: string
    queuePrompt(...given: any[]): Promise<{ prompt_id?: string; node_errors?: Record<string, any> }>
    fetchApi(route: string, options?: RequestInit): Promise<Response>
    apiURL(route: string): string
    addEventListener(type: string, listener: (event: CustomEvent) => void): void
  }
}

interface Window {
  /** `vueNodesMode`: nodes are drawn as elements of the page, not on the canvas. */
  LiteGraph: { vueNodesMode?: boolean }
}

declare module "*/scripts/app.js" {
  export const app: Comfy.App
}

declare module "*/scripts/api.js" {
  export const api: Comfy.Api
}
