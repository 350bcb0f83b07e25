"""Small whole slides whose pixels tell where they are, written as tiled pyramids."""

from pathlib import Path

import numpy as np

GLASS = (243, 242, 244)


def places(width: int, height: int, scale: int = 1) -> np.ndarray:
    """Pixels uint8 [height, width, 3], pink all over: pixel (x, y) holds (x * scale, y * scale), different for each of 1024 x 512 places."""
    y, x = np.mgrid[:height, :width] * scale
    return np.stack([192 + x % 64, y % 128, 128 + x // 64 + y // 128 * 16], axis=-1).astype(np.uint8)


def on_glass(pixels: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels inside the box, glass around it."""
    slide = np.empty_like(pixels)
    slide[:] = GLASS
    slide[top:bottom, left:right] = pixels[top:bottom, left:right]
    return slide


def write_slide(path: Path, levels: list[np.ndarray], mpp: float | None = 1.0, ome: bool = False, **options) -> Path:
    """A tiled pyramid, lossless unless `compression` says otherwise: plain TIFF, or OME-TIFF with its levels in SubIFDs."""
    import tifffile

    options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"} | options
    with tifffile.TiffWriter(path, ome=ome) as file:
        for number, pixels in enumerate(levels):
            extra = {}
            if mpp is not None and not ome:
                extra = {"resolution": (1e4 / mpp * pixels.shape[1] / levels[0].shape[1],) * 2, "resolutionunit": "CENTIMETER"}
            if ome and not number:
                size = (
                    {}
                    if mpp is None
                    else {f"PhysicalSize{axis}{part}": told for axis in "XY" for part, told in (("", mpp), ("Unit", "µm"))}
                )
                extra = {"subifds": len(levels) - 1, "metadata": {"axes": "YXS", **size}}
            file.write(pixels, subfiletype=1 if number else 0, **extra, **options)
    return path


def write_dicom(folder: Path, levels: list[np.ndarray], mpp: float = 1.0, edge: int = 64) -> Path:
    """A DICOM whole slide image, uncompressed, a file a level."""
    from pydicom.uid import generate_uid

    folder.mkdir()
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for number, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        spacing = mpp * levels[0].shape[1] / width / 1000
        frames = []
        for y in range(0, height, edge):
            for x in range(0, width, edge):
                part = pixels[y : y + edge, x : x + edge]
                frames.append(np.pad(part, [(0, edge - part.shape[0]), (0, edge - part.shape[1]), (0, 0)]).tobytes())
        size = {"TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height, "NumberOfFrames": len(frames)}
        size |= {"ImagedVolumeWidth": width * spacing, "ImagedVolumeHeight": height * spacing}
        kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"] if number == 0 else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        _dicom_file(
            folder / f"{number}.dcm",
            edge,
            spacing,
            b"".join(frames),
            uids | size | {"ImageType": kind, "InstanceNumber": number + 1},
        )
    return folder


def _dicom_file(path: Path, edge: int, spacing: float, frames: bytes, told: dict) -> None:
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

    def nested(**values) -> Dataset:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    measures = nested(PixelSpacing=[spacing, spacing], SliceThickness=1.0)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "PixelRepresentation": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    file = nested(
        **(told | colour | bits),
        SOPClassUID=VLWholeSlideMicroscopyImageStorage,
        SOPInstanceUID=generate_uid(),
        Modality="SM",
        Rows=edge,
        Columns=edge,
        DimensionOrganizationType="TILED_FULL",
        TotalPixelMatrixFocalPlanes=1,
        NumberOfOpticalPaths=1,
        OpticalPathSequence=[nested(OpticalPathIdentifier="1")],
        SharedFunctionalGroupsSequence=[nested(PixelMeasuresSequence=[measures])],
    )
    file.add_new("PixelData", "OB", frames)
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, file, enforce_file_format=True)
