"""Folders of somebody's own images, before a YAML file tells of them: a first look, from which `segda init` guesses."""
