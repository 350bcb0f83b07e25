"""A document is data; renderers make a page, markdown, terminal text and JSON from it.

How a page is made:

    from pcam_ssl.render.document import Details, Document, Paragraph, Section, Table, absent
    from pcam_ssl.render.format import with_interval  # numbers as cells

    table = Table(("score", "value"), [("AUROC", with_interval(score))])
    scores = Section("Scores", (Paragraph("Slides resampled.", "note"), table, Details("All", (wide_table,))), key="scores")
    document = Document("run-1: pcam-ssl report", (scores, absent("Slides", "their ids are not known")), footer="For research.")

    html.page(document); text.markdown(document); text.terminal(document.body, width=100); text.values(document)

Blocks hold plain text, which every renderer escapes; None among blocks is left out. A picture comes from `html.picture(pixels, alt)`,
a chart from `charts` (`Chart(...).block()`, `dot_chart(...)`). `look` names rules of `templates/page.css` and never changes the content. Nothing in this package depends on a run.
"""
