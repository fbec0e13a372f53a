"""Our look: ink on paper by day, paper on ink by night, one sea-green accent, the system's own fonts."""

from __future__ import annotations

from gradio.themes.base import Base
from gradio.themes.utils import colors, sizes

from opensora_demo.ui.scripts import UI_ASSETS

SEA = colors.Color(
    name="sea",
    c50="#effaf8",
    c100="#d5f2ee",
    c200="#aee4dc",
    c300="#7ad1c6",
    c400="#4fbfb2",
    c500="#16877c",
    c600="#0c6f66",
    c700="#0b5a53",
    c800="#0c4843",
    c900="#0c3b38",
    c950="#062523",
)
INK = colors.Color(
    name="ink",
    c50="#f7f8f9",
    c100="#eef0f2",
    c200="#dfe3e7",
    c300="#c6ccd3",
    c400="#98a3ae",
    c500="#6b7783",
    c600="#535e69",
    c700="#3a434c",
    c800="#262d34",
    c900="#171c21",
    c950="#0e1215",
)
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")


def build_theme() -> Base:
    """The theme; every colour that has a night is given for both."""
    theme = Base(
        primary_hue=SEA,
        secondary_hue=SEA,
        neutral_hue=INK,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="#e6eaee",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_color="*neutral_900",
        block_title_text_color_dark="#e6eaee",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_info_text_size="*text_sm",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        border_color_accent="*primary_500",
        color_accent="*primary_600",
        color_accent_soft="*primary_100",
        color_accent_soft_dark="*primary_900",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_shadow="none",
        input_shadow_focus="none",
        input_radius="8px",
        block_radius="8px",
        container_radius="8px",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_400",
        button_primary_background_fill_hover_dark="*primary_300",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="*primary_950",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_border_color="transparent",
        button_primary_shadow="none",
        button_secondary_shadow="none",
        button_large_radius="8px",
        button_small_radius="8px",
        checkbox_label_background_fill="#ffffff",
        checkbox_label_background_fill_dark="*neutral_900",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_950",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="*neutral_700",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_400",
        checkbox_label_shadow="none",
        layout_gap="16px",
        form_gap_width="0px",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


STYLES = ("stage", "composer", "curve", "page", "compare", "scope", "explain", "lesson", "gallery", "about")


def page_css() -> str:
    """Every style sheet of ours, one after another."""
    return "\n".join((UI_ASSETS / name / f"{name}.css").read_text("utf-8") for name in STYLES)
