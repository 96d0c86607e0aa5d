"""Edit one picture: image=... source_prompt=... target_prompt=... [method=ours threshold=0.5]."""

from piebench_masks.cli import edit_image

if __name__ == "__main__":
    edit_image()
