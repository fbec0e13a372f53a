// Written by `python -m opensora_demo.ui.values.types` from opensora_demo/ui/values.

export type Phase = "idle" | "loading" | "waiting" | "encoding" | "denoising" | "decoding" | "done" | "stopped" | "failed";
export type ChipKind = "colour" | "shape" | "motion" | "place";
export type PromptWordKind = "colour" | "shape" | "motion" | "place" | "more" | "unknown";
export type Quantity = "noisy" | "estimate" | "prompt" | "null" | "difference";
export type AttentionKind = "space" | "time" | "all" | "text";
export type QueueState = "queued" | "loading" | "running" | "done" | "cancelled" | "failed" | "interrupted";
export type CellValue = WaitingCell | DenoisingCell | DoneCell;

/**
 * A run of one clip: `total` is the steps of all its `scenes` (none where it has one), `latent` the number of
 * latent frames, `cell` width and height of the clip in its file, `unknown` are words that the model could not read.
 * `settings` are what was asked for, `link` the address that opens the form with them; `scales` from the lowest to the
 * highest and `rules` are what a branch may be guided by. The estimates are of `frames` frames of the clip, of which
 * `start` is the first; `decoded` are those that are there before the whole clip is, in order and from the first on.
 *
 * `history` are the finished runs that a page loaded anew gets back.
 */
export interface StageValue {
  run: number;
  job: string;
  phase: Phase;
  text: MessageValue;
  prompt: string;
  elapsed: number;
  left: number | null;
  kept: boolean;
  total: number;
  fps: number;
  frames: number;
  latent: number;
  cell: [number, number];
  chips: ChipValue[];
  settings: Record<string, any>;
  link: LinkValue;
  scales: [number, number];
  rules: RuleValue[];
  scenes: SceneValue[];
  steps: StepValue[];
  start: number;
  decoded: DecodedValue[];
  clip: ClipValue | null;
  note: MessageValue | null;
  unknown: string[];
  history?: StageValue[];
}

/**
 * The stage before the first run.
 */
export interface ExamplesValue {
  phase: "idle";
  examples: ExampleValue[];
}

/**
 * A comparison: `done` and `total` steps of all runs, `seeds` clips a cell, `negative` (empty where the rows
 * differ in it) and `chips` what all clips share. `grid` is the whole table as an mp4, `numbers` as a CSV file.
 * `stored`: it was made with the demo, and not for this visitor.
 */
export interface CompareValue {
  run: number;
  job: string;
  phase: Phase;
  text: MessageValue;
  prompt: string;
  elapsed: number;
  left: number | null;
  kept: boolean;
  done: number;
  total: number;
  axis: string;
  seeds: number;
  negative: string;
  chips: ChipValue[];
  columns: ColumnValue[];
  rows: RowValue[];
  cells: CellValue[][];
  chart: ChartValue | null;
  grid: FileValue | null;
  numbers: FileValue | null;
  link: LinkValue;
  note: MessageValue | null;
  stored?: boolean;
}

/**
 * latent and channels are counts and 0 before the first step; aspect is width over height of a picture; seconds is
 * how long the clip lasts, which is what playing its latent frames takes; done: the run is over.
 *
 * decoded: of a model with a small decoder, in the order in which they were made; a quick run has most of them at its
 * end. clip: a JPEG as data URI, a frame of the finished clip for each latent frame. stored: it was made with the
 * demo, and not for this visitor.
 */
export interface ScopeValue {
  run: number;
  prompt: string;
  total: number;
  latent: number;
  channels: number;
  aspect: number;
  seconds: number;
  done: boolean;
  steps: ScopeStep[];
  decoded: DecodedValue[];
  clip: string | null;
  stored?: boolean;
}

/**
 * One run that is looked into; `share` of its work is done, 0..1. `stored`: it was made with the demo, and not for
 * this visitor.
 */
export interface ExplainValue {
  run: number;
  phase: "working" | "done" | "stopped" | "failed";
  text: MessageValue;
  share: number;
  prompt: string;
  model: string;
  model_id: string;
  seed: number;
  stored?: boolean;
  figures: FiguresValue;
}

/**
 * What the page's form would explain now: its prompt and the id of its model.
 */
export interface AskedValue {
  prompt: string;
  model: string;
}

/**
 * The networks, the prompts of their clips in order, and how they were measured; `minutes` of CPU time trained
 * each, and `prompts` and `two_prompts` were measured of each.
 */
export interface ModesValue {
  modes: ModeValue[];
  shown: string[];
  seed: number;
  batch: number;
  minutes: number | null;
  prompts: number | null;
  two_prompts: number | null;
  date: string;
}

/**
 * The answer to "check my clips" in the step called `exercise`; `check` rises from one answer to the next.
 */
export interface LessonValue {
  check: number;
  exercise: string;
  solved: boolean;
  text: MessageValue;
  clips: CheckedClip[];
}

/**
 * `clips`: the newest of `count`; `room` says what they take of what they may, `note` what went wrong. `runs`: what
 * of the queue is drawn, and `left_out` the number of others; `going`: how many are not over, `ended`:
 * how many are; `queue` says how it stands. `added` is the number of runs that the page has just put into it.
 */
export interface GalleryValue {
  clips: KeptClipValue[];
  count: number;
  room: MessageValue;
  note: MessageValue | null;
  runs: QueuedRunValue[];
  left_out: number;
  going: number;
  ended: number;
  paused: boolean;
  queue: MessageValue;
  added: number;
}

/**
 * The values worth a button, by kind, each with its words; `fewer` are the models that read only some kinds.
 */
export interface ChipsValue {
  chips: Record<ChipKind, Record<string, WordValue>>;
  fewer: Record<string, ChipKind[]>;
}

/**
 * A prompt as it is understood. `turn` is that of the question; `before` is the text that it edited, None where it
 * only asked.
 */
export interface PromptValue {
  turn: number;
  text: string;
  before: string | null;
  words: PromptWordValue[];
}

/**
 * The text of a curve over the steps, and the guidance scale whose pull it shares out.
 */
export interface GuidanceCurveValue {
  curve: string;
  guidance: number;
}

/**
 * The chosen model, for the stages: `cell` is width and height of its clips, `runs` whether it can be used here,
 * `extends` whether it goes on from a given video, `defaults` what its sliders stand at, by their ids.
 */
export interface ModelValue {
  model: string;
  cell: [number, number];
  runs: boolean;
  extends: boolean;
  defaults: Record<string, number>;
}

/**
 * What every run says: `run` rises from one to the next, `job` is the secret by which a page asks for it again;
 * `elapsed` and `left` in seconds. `kept`: it goes on, though nobody watches it.
 */
export interface RunValue {
  run: number;
  job: string;
  phase: Phase;
  text: MessageValue;
  prompt: string;
  elapsed: number;
  left: number | null;
  kept: boolean;
}

/**
 * Nothing has run yet; `text` says where the settings in the form are from, or what has become of a run.
 */
export interface IdleValue {
  phase: "idle";
  text?: MessageValue;
}

/**
 * A message for the reader: `lib/i18n.js` puts it into words.
 */
export interface MessageValue {
  code: string;
  params: Record<string, any>;
}

/**
 * A word and a value under a clip.
 */
export interface ChipValue {
  name: MessageValue;
  value: MessageValue;
}

/**
 * What "Copy link" copies behind the page's address, and what is to be said of what this cannot carry.
 */
export interface LinkValue {
  query: string;
  note: MessageValue | null;
}

/**
 * A rule of guidance that the model has.
 */
export interface RuleValue {
  name: string;
  title: MessageValue;
}

/**
 * One of several scenes of a clip: the second at which its own frames begin, its words, and what is seen in it.
 */
export interface SceneValue {
  start: number;
  prompt: string;
  verdict: VerdictValue | null;
}

/**
 * One step: `index` from 1, `noise_level` from 1 to 0 before it. The rest are pictures of its latent frames side by
 * side, null until they are made: `noise` the clip before the step, `guess` what it is expected to become, `latent`
 * the same with a square for each position (null for good where the guess is shown so anyway).
 */
export interface StepValue {
  index: number;
  noise_level: number;
  noise: string | null;
  guess: string | null;
  latent: string | null;
}

/**
 * Frames of the clip from `first` on, which are decoded while others are not.
 */
export interface DecodedValue {
  first: number;
  sheet: SheetValue;
}

/**
 * A finished clip: its file, the settings inside it, and what is seen in it, where a reader can tell.
 */
export interface ClipValue {
  file: FileValue;
  settings: Record<string, any>;
  verdict: VerdictValue | null;
}

/**
 * A clip made before, and one frame of it.
 */
export interface ExampleValue {
  file: FileValue;
  poster: FileValue;
  verdict: VerdictValue | null;
  prompt: string;
  seed: number;
  settings: Record<string, any>;
  chips: ChipValue[];
}

/**
 * What the clips of a column share.
 */
export interface ColumnValue {
  label: MessageValue;
  scale: number;
  rule: string;
  rule_title: MessageValue;
}

/**
 * What the clips of a row share; `latent` is the number of latent frames, `cell` width and height in the file,
 * `total` the number of steps, `steps` those that are kept.
 */
export interface RowValue {
  label: MessageValue | null;
  fps: number;
  frames: number;
  latent: number;
  cell: [number, number];
  total: number;
  steps: RowStepValue[];
}

/**
 * A clip that is not there yet, or was not made.
 */
export interface WaitingCell {
  state: "waiting" | "missing";
}

/**
 * A clip being made: `step` from 1.
 */
export interface DenoisingCell {
  state: "denoising";
  step: number;
}

/**
 * A finished clip; `mosaic` shows it among those of the other seeds.
 */
export interface DoneCell {
  state: "done";
  file: FileValue;
  sheet: SheetValue;
  mosaic: SheetValue | null;
  settings: Record<string, any>;
  marks: MarkValue[] | null;
}

/**
 * A line for each row; where the rows are seeds, one of their means.
 */
export interface ChartValue {
  lines: LineValue[];
}

/**
 * A file: its name, and its address relative to the page's base.
 */
export interface FileValue {
  orig_name: string;
  url: string;
}

/**
 * One step of a run.
 *
 * index: from 1; noise_level: 1..0; milliseconds: of denoising; guidance_asked: the scale in force; guidance_measured:
 * what the result comes to; cosine: between the branches; peak: of the difference's picture, in units of the latent;
 * quantities: what `pictures` shows, row by row, its latent frames side by side; channels: the same of every channel
 * of the guided estimate. Pictures are data URIs. reused: the prediction is that of the step before.
 */
export interface ScopeStep {
  index: number;
  noise_level: number;
  milliseconds: number;
  guidance_asked: number;
  guidance_measured: number | null;
  sizes: BranchSizes;
  cosine: number | null;
  peak: number | null;
  quantities: Quantity[];
  pictures: string;
  channels: string;
  reused?: boolean;
}

/**
 * A step (`index` from 1) once more, decoded: a JPEG as data URI with a row for each of `quantities`, its latent
 * frames side by side.
 */
export interface DecodedValue {
  index: number;
  quantities: Quantity[];
  pictures: string;
}

/**
 * The figures that are there by now.
 */
export interface FiguresValue {
  tokens?: TokensValue;
  attention?: AttentionValue | MissingValue;
  coding?: CodingValue;
  flow?: FlowValue;
  guidance?: GuidanceValue | MissingValue;
  halves?: HalvesValue | MissingValue;
  channels?: ChannelsValue;
  gates?: GatesValue | MissingValue;
  mask?: MaskValue;
  causal?: CausalValue;
  scaled?: ScaledValue;
}

/**
 * One network, by the fingerprint of its `weights`.
 *
 * `gflop` and `ms` are of one call of it with both branches of guidance: arithmetic and the median time; `mb` the most
 * that a training step of `batch` clips holds. `right` is the share of `prompts` clips with all four right, `two` of
 * those of two objects with everything right. A network that is not trained yet has costs alone.
 */
export interface ModeValue {
  model: string;
  weights: string | null;
  title: string;
  mode: "cross-attention" | "concatenation" | "replacement";
  parameters: number;
  gflop: number;
  ms: number;
  mb: number;
  right: number | null;
  two: number | null;
  clips: ModeClip[];
}

/**
 * A clip as the reader saw it; `counts`: it solves the exercise, or helps to.
 */
export interface CheckedClip {
  prompt: string;
  seed: number;
  steps: number;
  guidance: number;
  marks: MarkValue[];
  counts: boolean;
}

/**
 * A clip of the gallery: its file by name, when it was made in seconds since 1970, and what made it.
 */
export interface KeptClipValue {
  name: string;
  prompt: string;
  made: number;
  chips: ChipValue[];
}

/**
 * A run of the queue: `text` says how it stands, `reason` why it failed, `clip` names its file in the gallery once
 * it is there.
 */
export interface QueuedRunValue {
  id: string;
  state: QueueState;
  prompt: string;
  about: string;
  text: MessageValue;
  reason: MessageValue | null;
  clip: string;
}

/**
 * A word of the toy worlds as its chip has it.
 */
export interface WordValue {
  en: string;
  zh: string;
}

/**
 * Characters [start, end) of a prompt, in UTF-16 as scripts count, and what they say: `value` is one of the toy
 * worlds' for a colour, shape, motion or place, `near` what could stand in the place of an unknown word.
 */
export interface PromptWordValue {
  start: number;
  end: number;
  kind: PromptWordKind;
  value: string;
  near: string;
}

/**
 * A clip in words, "red ball, bouncing, meadow"; of `asked` attributes `right` are as the prompt says, and `wrong`
 * names the others as they are seen.
 */
export interface VerdictValue {
  seen: WordValue;
  right: number;
  asked: number;
  wrong: WordValue[];
}

/**
 * `count` frames of `size` (height, width) in pixels in one picture, `across` in a line.
 */
export interface SheetValue {
  file: FileValue;
  across: number;
  size: [number, number];
  count: number;
}

/**
 * A step of a row: `index` from 1, `pictures` a JPEG of each column's estimate, its latent frames side by side.
 */
export interface RowStepValue {
  index: number;
  noise_level: number;
  pictures: string[];
}

/**
 * One attribute: what was asked, nothing where it was left open, and what the reader saw (of two objects two words
 * each), whether that agrees, whether the reader cannot tell, and how likely it finds, 0..1, that what was asked is
 * shown.
 */
export interface MarkValue {
  kind: ChipKind;
  asked: WordValue[];
  seen: WordValue[];
  right: boolean | null;
  unsure: boolean;
  confidence: number | null;
}

/**
 * One line over the columns; None where nothing is known. `sure`: how likely the reader finds it, 0..1, that what
 * was asked is shown, mean of the attributes; `right`: the share of them that it sees without doubt; `variety`: how
 * far clips of different seeds are apart (RMS, 0..1).
 */
export interface LineValue {
  label: MessageValue | null;
  sure: (PointValue | null)[];
  right: (PointValue | null)[];
  variety: (PointValue | null)[];
}

/**
 * RMS of the predictions of both branches and of their difference; None where one was not evaluated.
 */
export interface BranchSizes {
  prompt: number | null;
  null: number | null;
  difference: number | null;
}

/**
 * `grid`: tokens along time, height and width; `times`: of the curves, from 1 to 0.
 */
export interface TokensValue {
  fact: MessageValue;
  grid: [number, number, number];
  times: number[];
  curves: CurveValue[];
}

/**
 * `focus`: frame, row and column (from 0) of a patch on the object. `shared`: words and patches stand in one
 * sequence, and their weights add up to one together.
 */
export interface AttentionValue {
  fact: MessageValue;
  grid: [number, number, number];
  focus: [number, number, number];
  words: string[];
  heads: number;
  shared: boolean;
  looks: AttentionLook[];
}

/**
 * Why a figure cannot be drawn.
 */
export interface MissingValue {
  missing: MessageValue;
}

/**
 * `spans`: first frame and end of every latent frame; `shown`: the clip, a frame for each latent frame.
 */
export interface CodingValue {
  fact: MessageValue;
  stages: CodingStage[];
  spans: [number, number][];
  changes: ChangeValue[];
  shown: StripValue;
}

/**
 * `points` (one more than steps) and `estimates` on the plane, noise at (0, 0) and clip at (1, 0); `noisy` and
 * `clean`: pictures of what each step was given, and of the clip it expected.
 */
export interface FlowValue {
  fact: MessageValue;
  times: number[];
  points: [number, number][];
  estimates: [number, number][];
  noisy: PixelsValue[];
  clean: PixelsValue[];
}

/**
 * `scale` of the run, `most` of the slider; `start` is the step (from 0) at which both predictions differ most.
 */
export interface GuidanceValue {
  fact: MessageValue;
  start: number;
  scale: number;
  most: number;
  frames: number;
  height: number;
  width: number;
  unit: number;
  pulls: PullValue[];
}

/**
 * The doubled batch of one step: sizes of what went in and what came out, and one latent frame of each.
 */
export interface HalvesValue {
  fact: MessageValue;
  scale: number;
  given: number[];
  answered: number[];
  peak: number;
  pictures: HalvesPictures;
}

/**
 * Output channels: `latent` of them and, where there are more, as many again. `values` holds channels x height x
 * width bytes in base64, 128 for nothing.
 */
export interface ChannelsValue {
  fact: MessageValue;
  latent: number;
  channels: number;
  height: number;
  width: number;
  use: "none" | "cut" | "variance" | "ignored";
  values: string;
}

/**
 * Gates and additions of every block, in the network's order.
 */
export interface GatesValue {
  fact: MessageValue;
  gates: GateValue[];
  added: AddedValue[];
}

/**
 * What a mask of this run would take; the calculator beside it needs nothing of the run.
 */
export interface MaskValue {
  fact: MessageValue;
}

/**
 * A few frames of the clip, and what the convolution makes of them with each padding.
 */
export interface CausalValue {
  fact: MessageValue;
  strip: PixelsValue;
  filtered: FilteredValue[];
}

/**
 * A latent frame times each of `factors`: its standard deviation, what is decoded, and its PSNR in dB against the
 * picture of the right latents.
 */
export interface ScaledValue {
  fact: MessageValue;
  factors: number[];
  deviations: number[];
  psnr: number[];
  picture: StripValue;
}

/**
 * A clip's address beside modes.json, and what the reader sees in it.
 */
export interface ModeClip {
  url: string;
  verdict: VerdictValue;
}

/**
 * A mean over seeds, the value of `each` of them, and its standard error (None of a single one).
 */
export interface PointValue {
  mean: number;
  error: number | null;
  each: number[];
}

/**
 * What adaLN does in one part of one block; `kind` tells blocks, or parts, over space and over time apart.
 */
export interface CurveValue {
  layer: number;
  kind: "space" | "time" | null;
  part: "attention" | "mlp" | "both";
  shift: VectorValue;
  scale: VectorValue;
  gate: VectorValue;
}

/**
 * All maps of one step.
 */
export interface AttentionLook {
  step: number;
  noise_level: number;
  maps: AttentionMap[];
}

/**
 * The clip at one place of its way through the codec; `size` is (channels, frames, height, width).
 *
 * `name` is "clip", "latents", "decoded", or what a codec calls its own stages.
 */
export interface CodingStage {
  name: string;
  size: number[];
  values: number;
  picture: PixelsValue | StripValue;
}

/**
 * How far each latent frame moves, RMS, when the clip is turned to its negative from `frame` (from 0) on, and what
 * the stages behind the clip then hold, by their names.
 */
export interface ChangeValue {
  frame: number;
  latents: number[];
  pictures: Record<string, PixelsValue | StripValue>;
}

/**
 * Frames of the clip side by side: a JPEG as data URI.
 */
export interface StripValue {
  frames: number;
  height: number;
  width: number;
  uri: string;
}

/**
 * A small picture of latents, place by place: `rgb` holds frames x height x width x 3 bytes in base64.
 */
export interface PixelsValue {
  frames: number;
  height: number;
  width: number;
  rgb: string;
}

/**
 * Both predictions of a step on the plane they span: the null one lies along its first axis, `null_norm` long.
 * Pictures are frames x height x width x 3 numbers of 16 bits in base64, `unit` for white.
 */
export interface PullValue {
  noise_level: number;
  null_norm: number;
  prompt: [number, number];
  prompt_norm: number;
  cosine: number;
  null_picture: string;
  prompt_picture: string;
}

/**
 * The latent, what was predicted for it with the prompt and without, how far apart these are, and their mix.
 */
export interface HalvesPictures {
  latent: PixelsValue;
  prompt: PixelsValue;
  null: PixelsValue;
  gap: PixelsValue;
  mix: PixelsValue;
}

/**
 * A gate before training and now, root mean square over channels, mean over flow times.
 */
export interface GateValue {
  layer: number;
  kind: "space" | "time" | null;
  part: "attention" | "mlp" | "both";
  start: number;
  now: number;
}

/**
 * What a block adds to its input, as a share of it, before training and now.
 */
export interface AddedValue {
  layer: number;
  kind: "space" | "time" | null;
  start: number;
  now: number;
}

/**
 * A strip of `frames` frames through a causal convolution: `reach[i][j]` of output i is input j.
 */
export interface FilteredValue {
  padding: "constant" | "replicate";
  frames: number;
  reach: number[][];
  picture: PixelsValue;
}

/**
 * A vector of adaLN over the times of its figure: root mean square over channels, of itself and of its change since
 * t = 1.
 */
export interface VectorValue {
  size: number[];
  change: number[];
}

/**
 * Weights as 16-bit fractions in base64, rows of sum one. By kind: "space" (t, heads, s, s), "time" (s, heads, t,
 * t), "all" (heads, t s, t s), "text" (heads, t s, words).
 */
export interface AttentionMap {
  layer: number;
  kind: AttentionKind;
  weights: string;
}
