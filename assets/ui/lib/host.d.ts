/** What Gradio hands to a component's script. */
export interface Host<Value> {
  element: HTMLElement;
  /** Sends an event to Python. */
  trigger(event: string, data?: unknown): void;
  /** `saved` in a page that was saved and has no server. The newest value and properties; where Python has given no value, Gradio gives an empty text. */
  props: { value: Value | null | ""; name?: string; about?: import("../types.js").ModelValue; saved?: boolean };
  /** Calls back when a property was set by Python. */
  watch(property: string, act: () => void): void;
}
