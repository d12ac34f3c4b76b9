"""Makes a sample to try dicomfs on: pydicom's own small test files and a CT volume made here.

The volume imitates what decides how well an image compresses: noise with the spectrum of a reconstruction
kernel, stronger behind more tissue; edges softened by the scanner's point spread; neighbouring slices that
overlap; a table; padding outside the round field of view; headers with the attributes a scanner writes.
It shows no person.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

SIZE = 512
PIXEL_MM = 0.7422
SPACING_MM = 1.5
PADDING = -2000
"""Outside the field of view, as scanners mark it."""
UID_ROOT = "1.2.826.0.1.3680043.8.498.1"

Image = npt.NDArray[np.float32]
Ellipsoid = tuple[float, float, float, float, float, float, float]
"""Centre x, y, z and half axes x, y, z in mm, then Hounsfield units; later ones cover earlier ones."""

ANATOMY: tuple[Ellipsoid, ...] = (
    (0, 0, 0, 165, 115, 400, -90),  # fat
    (0, 2, 0, 150, 100, 400, 45),  # muscle
    (-68, -6, -10, 56, 72, 110, -860),  # lung
    (70, -6, -10, 54, 70, 105, -850),
    (22, -22, -5, 46, 40, 55, 42),  # heart
    (26, -20, -5, 26, 22, 34, 180),  # with contrast agent
    (4, 34, 0, 12, 12, 400, 210),  # aorta
    (-4, 66, 0, 21, 17, 400, 380),  # vertebrae
    (-4, 66, 0, 15, 12, 400, 190),
    (-4, 86, 0, 9, 9, 400, 30),  # spinal canal
    (-95, 10, 70, 60, 66, 80, 62),  # liver
    (-80, 20, 74, 3, 3, 40, 140),  # a vessel in it
)
RIBS = 14
TABLE_Y_MM = 128.0


def grid() -> tuple[Image, Image]:
    """Return the x and y of every pixel in mm, from the centre."""
    axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) * np.float32(PIXEL_MM)
    x, y = np.meshgrid(axis, axis)
    return x, y


def ribs(z: float) -> Iterator[Ellipsoid]:
    """Yield the ribs that a slice at `z` mm cuts: they sink as they go round."""
    for side in (-1, 1):
        for number in range(RIBS):
            angle = (number + (z / 24.0) % 1.0) / RIBS * np.pi - np.pi / 2
            x, y = side * 143 * np.cos(angle), 94 * np.sin(angle)
            yield (float(x), float(y), z, 9, 5, 50, 520)


def tissue(x: Image, y: Image, z: float) -> Image:
    """Return the Hounsfield units of a slice without noise."""
    image = np.full((SIZE, SIZE), -1000, np.float32)
    for cx, cy, cz, ax, ay, az, value in (*ANATOMY[:2], *ribs(z), *ANATOMY[2:]):
        rest = 1 - ((z - cz) / az) ** 2
        if rest > 0:
            image[((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 < rest] = value
    table = np.abs(y - TABLE_Y_MM - (x / 60) ** 2) < 9
    image[table & (np.abs(x) < 190)] = -940
    image[table & (np.abs(y - TABLE_Y_MM - (x / 60) ** 2) > 7.5) & (np.abs(x) < 190)] = -120
    return image


def spectra() -> tuple[Image, Image]:
    """Return point spread and noise spectrum (a ramp, smoothed off by the kernel) over spatial frequency."""
    fy = np.fft.fftfreq(SIZE)[:, None]
    fx = np.fft.rfftfreq(SIZE)[None, :]
    frequency = np.hypot(fx, fy)
    spread = np.exp(-((frequency / 0.30) ** 2))
    noise = np.sqrt(frequency + 0.004) * np.exp(-((frequency / 0.24) ** 2))
    noise /= np.sqrt(np.mean(noise**2))
    return spread.astype(np.float32), noise.astype(np.float32)


def filtered(image: Image, spectrum: Image) -> Image:
    """Return the image with its spectrum multiplied."""
    result = np.fft.irfft2(np.fft.rfft2(image) * spectrum, s=(SIZE, SIZE))
    return np.asarray(result, np.float32)


def volume(slices: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the stored values of each slice: Hounsfield units + 1024, 12 bits, and the padding."""
    random = np.random.default_rng(20)
    x, y = grid()
    outside = np.hypot(x, y) > SIZE * PIXEL_MM / 2
    depth = np.clip(1 - (x / 165) ** 2 - (y / 115) ** 2, 0, 1)
    sigma = (6 + 16 * depth).astype(np.float32)
    spread, spectrum = spectra()
    before = random.standard_normal((SIZE, SIZE), np.float32)
    for index in range(slices):
        fresh = random.standard_normal((SIZE, SIZE), np.float32)
        noise = filtered(0.35 * before + 0.94 * fresh, spectrum)
        before = fresh
        image = filtered(tissue(x, y, (index - slices / 2) * SPACING_MM), spread) + sigma * noise
        stored = np.clip(np.rint(image) + 1024, 0, 4095).astype(np.int16)
        stored[outside] = PADDING
        yield stored


def header(index: int, slices: int) -> Dataset:
    """Return what a scanner writes about slice `index`, without the pixels."""
    z = (index - slices / 2) * SPACING_MM
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = f"{UID_ROOT}.3.{index + 1}"
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20240311"
    data.StudyTime, data.SeriesTime = "101502.113000", "101733.874000"
    data.AcquisitionTime = f"1018{index * 0.125:09.6f}"
    data.ContentTime = f"1019{index * 0.25:09.6f}"
    data.AccessionNumber, data.Modality, data.Manufacturer = "A000017", "CT", "DICOMFS"
    data.InstitutionName, data.ReferringPhysicianName = "SAMPLE HOSPITAL", "SAMPLE^REFERRER"
    data.StationName, data.ManufacturerModelName = "CT01", "PHANTOM 64"
    data.StudyDescription, data.SeriesDescription = "CHEST WITH CONTRAST", "CHEST 1.5 B41"
    data.PatientName, data.PatientID = "SAMPLE^PHANTOM", "DICOMFS-0001"
    data.PatientBirthDate, data.PatientSex, data.PatientAge, data.PatientWeight = (
        "19700101",
        "O",
        "054Y",
        "75",
    )
    data.BodyPartExamined, data.PatientPosition = "CHEST", "FFS"
    data.SliceThickness, data.KVP, data.SpacingBetweenSlices = "2.0", "120", f"{SPACING_MM}"
    data.DataCollectionDiameter, data.ReconstructionDiameter = "500", f"{SIZE * PIXEL_MM:.1f}"
    data.GantryDetectorTilt, data.TableHeight, data.RotationDirection = "0", "158", "CW"
    data.ExposureTime, data.XRayTubeCurrent, data.Exposure = (
        "500",
        str(210 + index % 37),
        str(105 + index % 19),
    )
    data.ConvolutionKernel, data.SoftwareVersions = "B41", "sample 1"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{UID_ROOT}.1", f"{UID_ROOT}.2"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = f"{UID_ROOT}.4", ""
    data.StudyID, data.SeriesNumber, data.AcquisitionNumber = "17", "3", "2"
    data.InstanceNumber = str(index + 1)
    corner = -(SIZE - 1) / 2 * PIXEL_MM
    data.ImagePositionPatient = [f"{corner:.4f}", f"{corner:.4f}", f"{z:.4f}"]
    data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data.SliceLocation = f"{z:.4f}"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = SIZE
    data.PixelSpacing = [f"{PIXEL_MM}", f"{PIXEL_MM}"]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelPaddingValue = PADDING
    data.WindowCenter, data.WindowWidth = "40", "400"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
    return data


def write_volume(folder: Path, slices: int) -> None:
    """Write the CT volume, one file a slice."""
    folder.mkdir(parents=True)
    for index, stored in enumerate(volume(slices)):
        data = header(index, slices)
        data.PixelData = stored.astype("<i2").tobytes()
        data["PixelData"].VR = "OW"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(f"{UID_ROOT}.9")
        path = folder / f"IM{index + 1:04}"
        FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128).save_as(
            path, enforce_file_format=True
        )


def copy_bundled(folder: Path) -> int:
    """Copy the test files that came with pydicom and are DICOM instances; return how many."""
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    folder.mkdir(parents=True)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.simplefilter("ignore", UserWarning)  # these files are odd on purpose
    copied = 0
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")):
        try:
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        except (pydicom.errors.InvalidDicomError, ValueError, KeyError, NotImplementedError, OSError):
            continue
        if found.get("SOPInstanceUID"):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            copied += 1
    return copied


def main() -> None:
    """Make the sample in a new folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--slices", type=int, default=96)
    arguments = parser.parse_args()
    write_volume(arguments.folder / "ct", arguments.slices)
    copied = copy_bundled(arguments.folder / "pydicom")
    print(f"{arguments.slices} CT slices and {copied} small files of many kinds in {arguments.folder}")


if __name__ == "__main__":
    main()
