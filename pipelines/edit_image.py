"""One picture, one edit: `piebench-masks edit image=... source_prompt=... target_prompt=...`."""

from piebench_masks.cli import edit_image

if __name__ == "__main__":
    edit_image()
