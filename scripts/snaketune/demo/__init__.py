"""The web demo: one page on this machine where one or two models answer side by side."""
