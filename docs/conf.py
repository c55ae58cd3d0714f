"""What Sphinx is told; ``docs/website.py`` puts the pages together and runs it."""

project = "classgraft"
copyright = "its authors, Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 3
smartquotes = False
html_theme = "furo"
html_title = "classgraft"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
templates_path: list[str] = []
html_static_path = ["look"]
html_css_files = ["site.css"]
