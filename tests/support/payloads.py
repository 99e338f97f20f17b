"""Texts that Markdown, Streamlit, Plotly or a browser would take for something else."""

PAYLOADS = [
    "http://evil.example/a?b=c and https://evil.example",
    "www.evil.example or mail me@evil.example",
    "a -> b <- c -- d >= e <= f ~= g <-> h",
    ":smile: :+1: :material/home: :streamlit:",
    ":red[red] :blue-background[x] :small[y] :help[z] :color[q]{foreground=red}",
    "<b>bold</b> <a href='http://evil.example'>x</a> <br> <script>alert(1)</script>",
    "$x^2$ and $$y$$ \\(z\\)",
    "[link](http://evil.example) ![picture](http://evil.example/i.png) [^1]",
    "**bold** _under_ ~~gone~~ `code` ``more``",
    "# head",
    "- item",
    "1. item",
    "> quoted",
    "| a | b |",
    "```",
    "&amp; &lt; &#65; \\ \\`",
    "%{x} %{customdata[0]} %{hovertext}",
    "`",
]
