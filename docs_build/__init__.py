"""What makes the site of the documents: `mkdocs.yml` names the hooks, `make docs` calls it."""
