from opensora_demo.ui.stubs import write_no_stubs

write_no_stubs()  # before a module of this package imports Gradio
