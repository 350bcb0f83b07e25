"""The files of PatchCamelyon on Zenodo, record 2546921, and their published MD5 sums."""

URL = "https://zenodo.org/records/2546921/files"
_STEM = "camelyonpatch_level_2_split"
MD5 = {
    f"{_STEM}_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    f"{_STEM}_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    f"{_STEM}_valid_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    f"{_STEM}_valid_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    f"{_STEM}_test_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    f"{_STEM}_test_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    f"{_STEM}_train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    f"{_STEM}_valid_meta.csv": "3455fd69135b66734e1008f3af684566",
    f"{_STEM}_test_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
}
