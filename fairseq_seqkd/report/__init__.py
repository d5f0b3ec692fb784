"""The report: tables, figures, claims and the HTML page, made from measured results."""
