// What one may do with the clip on the stage, and the chips that say how it was made.
import { copy, pageAddress } from "../lib/clipboard.js";
import { otherForms } from "../lib/clips.js";
import { button, make } from "../lib/dom.js";
import { say, words } from "../lib/i18n.js";
import { frameAt } from "../lib/time.js";

/** @typedef {import("../types.js").ExampleValue} Example */
/** @typedef {(event: string, data?: unknown) => void} Trigger */
/** @typedef {import("../types.js").LinkValue} LinkValue */
/** @typedef {{ url: string, name: string, settings: Record<string, any>, link: LinkValue }} Clip */
/** @typedef {import("../types.js").StageValue} StageValue */

/** @param {string} text @param {string} title @param {(node: HTMLButtonElement) => void} act */
function action(text, title, act) {
  const node = button("os-action", text, () => act(node));
  node.title = title;
  return node;
}

/** An example as the form takes it. @param {Example} example */
export const asForm = (example) => ({ ...example.settings, prompt: example.prompt, seed: example.seed });

/** @param {import("../types.js").ChipValue[]} values */
export function chips(values) {
  return values.map(({ name, value }) => {
    const text = words(value);
    const chip = button("os-chip", "", () => copy(text, chip));
    chip.title = say("ui.stage.copy", { name: words(name) });
    chip.append(make("span", "os-key", words(name)), make("span", "os-value", text));
    return chip;
  });
}

/** @param {() => void} act */
const extendAction = (act) => action(say("ui.stage.extend"), say("ui.stage.extend.hint"), act);

/** @param {Example} example @param {Trigger} trigger @param {boolean} canExtend the model goes on from a video */
export function exampleActions(example, trigger, canExtend) {
  const use = () => trigger("pick", asForm(example));
  const extend = () => {
    use();
    trigger("extend", { name: example.file.orig_name, settings: asForm(example) });
  };
  return [action(say("ui.stage.use"), say("ui.stage.use.hint"), use), ...(canExtend ? [extendAction(extend)] : [])];
}

/**
 * @param {Clip} clip @param {() => number} seconds where the clip stands
 */
function downloads(clip, seconds) {
  const { fps } = clip.settings;
  const frames = clip.settings.total_frames ?? clip.settings.frames;
  /** @param {string} kind */
  const download = (kind) => {
    const node = make("a", "os-action", kind);
    node.title = say("ui.stage.download.as", { kind });
    return node;
  };
  const save = make("a", "os-action", say("ui.stage.download"));
  save.href = clip.url;
  save.download = clip.name;
  save.title = say("ui.stage.download.hint", { fps });
  return [
    ...(frames > 1 ? [save] : []), // one frame is a picture, no film
    ...otherForms(clip.name, frames, () => frameAt(seconds(), fps, frames), download),
  ];
}

/**
 * @param {StageValue} view a run that is over @param {Clip | null} clip null where it was stopped
 * @param {Trigger} trigger @param {() => boolean} running
 * @param {(note: import("../types.js").MessageValue | null) => void} note says what a link cannot carry
 * @param {() => void} decode makes a clip of what a stopped run expected
 * @param {() => number} seconds where the clip stands
 * @param {boolean} canExtend the chosen model goes on from a video
 */
export function clipActions(view, clip, trigger, running, note, decode, seconds, canExtend) {
  const { link } = view;
  const settings = clip?.settings ?? view.settings;
  const first = [];
  if (clip) first.push(...downloads(clip, seconds));
  else if (view.steps.length && !view.scenes.length)
    first.push(action(say("ui.stage.decode_now"), say("ui.stage.decode.hint"), decode));
  return [
    ...first,
    ...(clip && canExtend && settings.frames > 1
      ? [
          extendAction(() => {
            if (!running()) trigger("extend", { name: clip.name, settings: null });
          }),
        ]
      : []),
    action(say("ui.stage.reuse"), say("ui.stage.reuse.hint"), () => trigger("pick", settings)),
    action(say("ui.stage.vary"), say("ui.stage.vary.hint"), () => {
      if (running()) return;
      trigger("pick", { ...settings, seed: null });
      trigger("again", { ...settings, seed: null });
    }),
    action(say("ui.stage.link"), say("ui.stage.link.hint"), (node) => {
      copy(pageAddress(link.query), node);
      if (link.note) note(link.note);
    }),
    action(say("ui.stage.all"), say("ui.stage.all.hint"), (node) => copy(JSON.stringify(settings, null, 2), node)),
  ];
}
