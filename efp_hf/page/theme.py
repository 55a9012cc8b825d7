"""The page's theme: no font from elsewhere, and colours that can be read."""

from ..extras import needing

with needing("app", __name__):
    import gradio as gr


# The default theme's own greys and oranges are too faint for small text (WCAG 1.4.3).
CONTRAST = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_200",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "color_accent": "*primary_700",
    "link_text_color": "*secondary_700",
    "link_text_color_dark": "*secondary_300",
}


def make_theme() -> gr.themes.Base:
    fonts = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    return gr.themes.Default(font=fonts, font_mono=mono).set(**CONTRAST)
