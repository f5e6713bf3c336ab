"""All parts: viewers, plots, films, desks and the report page."""
