import os

os.rename("d.yaml", "away.yaml")
