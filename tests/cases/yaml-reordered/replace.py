import shutil

shutil.copy("other.yaml", "d.yaml")
