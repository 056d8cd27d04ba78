"""Files of other programs: written as the released code writes them, hostile ones, and a parser of VTK's XML."""

import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.loss_landscape.files.paraview import resample, vtk_polydata
from jobs.loss_landscape.files.surface_files import (
    SurfaceFile,
    read_directions,
    read_surface,
    write_directions,
    write_surface,
)
from service.errors import InputError, TooLargeError


def as_released(x: np.ndarray, y: np.ndarray, height: Callable[[float, float], float], points: int) -> bytes:
    """A surface file as the released code makes it: filled in its order, the first `points` of them."""
    losses = -np.ones((len(x), len(y)))
    across, along = np.meshgrid(x, y)
    for index in range(points):
        losses.ravel()[index] = height(across.ravel()[index], along.ravel()[index])
    content = io.BytesIO()
    with h5py.File(content, "a") as file:
        file["dir_file"] = "/home/somebody/model_300.t7_weights.h5"
        file["xcoordinates"], file["ycoordinates"] = x, y
        file["train_loss"], file["train_acc"] = losses, 100 - losses
    return content.getvalue()


def slope(x: float, y: float) -> float:
    return 10 * y + x + 5


@pytest.mark.parametrize(("steps_x", "steps_y"), [(3, 3), (3, 2), (2, 5)])
def test_released_surfaces_are_read(steps_x: int, steps_y: int) -> None:
    """Also those that are not square, which the released code scrambles."""
    x, y = np.linspace(-1, 1, steps_x), np.linspace(0, 2, steps_y)
    read = read_surface(as_released(x, y, slope, steps_x * steps_y))
    np.testing.assert_array_equal(read.values["train_loss"], 10 * y[:, None] + x + 5)
    np.testing.assert_array_equal(read.values["train_acc"], 100 - read.values["train_loss"])


def test_points_that_were_not_computed_are_nan() -> None:
    x = np.linspace(0, 1, 3)
    losses = read_surface(as_released(x, x, slope, 4)).values["train_loss"]
    np.testing.assert_array_equal(np.isnan(losses), [[False] * 3, [False, True, True], [True] * 3])


@given(st.integers(1, 5), st.integers(0, 5), st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_written_is_read(steps_x: int, steps_y: int, corner: float) -> None:
    x, y = np.arange(steps_x) / 3, (np.arange(steps_y) / 7 if steps_y else None)
    shape = (steps_x,) if y is None else (steps_y, steps_x)
    losses = np.random.default_rng(0).random(shape)
    losses.flat[0] = corner if corner != -1 else 0.0
    written = SurfaceFile(x, y, {"train_loss": losses, "max_eig": -losses})
    read = read_surface(write_surface(written, "δ.h5"))
    np.testing.assert_array_equal(read.x, x)
    assert (read.y is None) == (y is None) and read.shape == shape
    assert set(read.values) == {"train_loss", "max_eig"}
    np.testing.assert_array_equal(read.values["train_loss"], losses)


def test_the_released_plots_read_what_is_written() -> None:
    """They take meshgrid(x, y) and the array as it is."""
    x, y = np.arange(3.0), np.arange(2.0)
    with h5py.File(io.BytesIO(write_surface(SurfaceFile(x, y, {"train_loss": 10 * y[:, None] + x}))), "r") as file:
        across, along = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        np.testing.assert_array_equal(file["train_loss"][:], 10 * along + across)


def test_quantities_that_do_not_fit() -> None:
    x = np.arange(3.0)
    with pytest.raises(InputError, match="no place for 'loss'"):
        write_surface(SurfaceFile(x, x, {"loss": np.zeros((3, 3))}))
    with pytest.raises(InputError, match=r"shape \(3,\), and its grid \(3, 3\)"):
        write_surface(SurfaceFile(x, x, {"train_loss": np.zeros(3)}))


NETWORK = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "batches": torch.tensor(7)}


def test_directions_come_back_with_names_and_types() -> None:
    axes = [{"weight": torch.randn(2, 3), "bias": torch.randn(2), "batches": torch.tensor(step)} for step in (3, 0)]
    for written in (axes, axes[:1]):
        read = read_directions(write_directions(*written), NETWORK)
        assert len(read) == len(written)
        for one, other in zip(written, read, strict=True):
            assert list(other) == list(NETWORK)
            for name, tensor in other.items():
                assert torch.equal(tensor, one[name]) and tensor.dtype == NETWORK[name].dtype


def test_directions_of_another_network() -> None:
    content = write_directions({"weight": torch.zeros(3, 2), "bias": torch.zeros(2), "batches": torch.zeros(())})
    with pytest.raises(InputError, match=r"xdirection/0 has shape \(3, 2\), and weight of the network \(2, 3\)"):
        read_directions(content, NETWORK)
    with pytest.raises(InputError, match="has 3 tensors, and the network 1"):
        read_directions(content, {"weight": torch.zeros(3, 2)})
    with pytest.raises(InputError, match="no group xdirection"):
        read_directions(write_surface(SurfaceFile(np.arange(2.0), None, {})), NETWORK)
    with pytest.raises(InputError, match="xdirection/0 is not finite"):
        read_directions(write_directions({"bias": torch.full((2,), torch.nan)}), {"bias": torch.zeros(2)})


def test_texts_are_not_read() -> None:
    """HDF5 walks for ever through the heap of a text whose length was overwritten with zeros."""
    content = bytearray(write_surface(SurfaceFile(np.arange(3.0), None, {"train_loss": np.ones(3)}), "directions.h5"))
    heap = content.index(b"GCOL") + 16
    content[heap : content.index(b"directions.h5")] = bytes(content.index(b"directions.h5") - heap)
    assert read_surface(bytes(content)).values["train_loss"].tolist() == [1, 1, 1]


def hostile(fill: Callable[[h5py.File], object]) -> bytes:
    """A file that is right but for what `fill` puts into it."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["xcoordinates"] = np.arange(3.0)
        fill(file)
        if "train_loss" not in file.id:
            file["train_loss"] = np.zeros(3)
    return content.getvalue()


def huge(file: h5py.File) -> None:
    file.create_dataset("train_loss", (1 << 40,), "f8", chunks=(1024,))  # takes no room in the file


def wide(file: h5py.File) -> None:
    file["ycoordinates"] = np.arange(float(1 << 23))


def huge_coordinates(file: h5py.File) -> None:
    file.create_dataset("ycoordinates", (1 << 40,), "f8", chunks=(1024,))


def compressed(file: h5py.File) -> None:
    file.create_dataset("train_loss", data=np.zeros(3), compression="gzip")


def never_written(file: h5py.File) -> None:
    file.create_dataset("train_loss", (3,), "f8")


def objects(file: h5py.File) -> None:
    file.create_dataset("train_loss", (3,), dtype=h5py.string_dtype())


def group(file: h5py.File) -> None:
    file.create_group("train_loss")


def empty(file: h5py.File) -> None:
    file["train_loss"] = h5py.Empty("f8")


def not_finite(file: h5py.File) -> None:
    file["ycoordinates"] = np.array([np.nan, 0.0])


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (huge, "train_loss must hold at most 3 numbers"),
        (huge_coordinates, "ycoordinates must hold at most"),
        (compressed, "h5repack"),
        (never_written, "form that is not allowed"),
        (objects, "does not hold numbers"),
        (group, "not a dataset"),
        (empty, "does not hold numbers"),
        (not_finite, "ycoordinates is not a row of finite numbers"),
    ],
)
def test_contents_are_checked_before_they_are_read(fill: Callable[[h5py.File], None], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_surface(hostile(fill))


def test_too_many_points() -> None:
    with pytest.raises(TooLargeError, match="it has 25,165,824"):
        read_surface(hostile(wide))


def test_nothing_outside_of_the_file_is_read(tmp_path: Path) -> None:
    """Links to another file, soft links, data kept in another file, virtual data sets."""
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["train_loss"] = np.arange(3.0)
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(3.0).tobytes())

    def external_link(file: h5py.File) -> None:
        file["train_loss"] = h5py.ExternalLink(str(other), "/train_loss")

    def soft_link(file: h5py.File) -> None:
        file["train_loss"] = h5py.SoftLink("/xcoordinates")

    def external_data(file: h5py.File) -> None:
        file.create_dataset("train_loss", (3,), "f8", external=[(str(secret), 0, 24)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "train_loss", (3,))
        file.create_virtual_dataset("train_loss", layout)

    for fill, said in [(external_link, "link"), (soft_link, "link"), (external_data, "outside"), (virtual, "outside")]:
        with pytest.raises(InputError, match=said):
            read_surface(hostile(fill))


def test_files_that_are_damaged_or_something_else() -> None:
    whole = write_surface(SurfaceFile(np.arange(3.0), None, {"train_loss": np.ones(3)}))
    for content in (b"", b"PK\x03\x04 not one", whole[:100], whole[:-8]):
        with pytest.raises(InputError, match="damaged, or not HDF5"):
            read_surface(content)
    with pytest.raises(InputError, match="xcoordinates is missing"):
        read_surface(write_directions({"bias": torch.zeros(1)}))
    with pytest.raises(InputError, match="holds none of train_loss"):
        read_surface(write_surface(SurfaceFile(np.arange(3.0), None, {})))


def parsed(text: str) -> dict[str, np.ndarray]:
    """The arrays of a .vtp file, by name; counts are those that its piece tells."""
    root = ElementTree.fromstring(text)
    assert root.tag == "VTKFile" and root.get("type") == "PolyData"
    piece = root.find("PolyData/Piece")
    assert piece is not None
    arrays = {}
    for array in piece.iter("DataArray"):
        components = int(array.get("NumberOfComponents", "1"))
        numbers = np.array((array.text or "").split(), int if array.get("type") == "Int64" else float)
        arrays[array.get("Name", "")] = numbers.reshape(-1, components) if components > 1 else numbers
    assert (
        int(piece.get("NumberOfPoints", ""))
        == len(arrays["Points"])
        == len(arrays[piece.find("PointData").get("Scalars")])
    )
    assert (
        int(piece.get("NumberOfPolys", ""))
        == len(arrays["offsets"])
        == len(arrays[piece.find("CellData").get("Scalars")])
    )
    return arrays


def test_a_surface_for_paraview() -> None:
    x, y = np.array([0.0, 1.0, 3.0]), np.array([-1.0, 1 / 3])
    surface = 10 * y[:, None] + x
    arrays = parsed(vtk_polydata(surface, x, y))
    points = arrays["Points"]
    np.testing.assert_array_equal(points[:, 2], 10 * points[:, 1] + points[:, 0])  # every point is on the surface
    assert points[:, :2].tolist() == [[a, b] for b in y for a in x]  # x is fastest
    np.testing.assert_array_equal(arrays["loss"], points[:, 2])
    cells = np.split(arrays["connectivity"], arrays["offsets"][:-1])
    for corners, mean, left in zip(cells, arrays["averaged loss"], (0, 1), strict=True):
        area = points[corners, :2]
        assert {tuple(corner) for corner in area} == {(a, b) for a in x[left : left + 2] for b in y}
        rolled = np.roll(area, -1, 0)
        assert (area[:, 0] * rolled[:, 1] - area[:, 1] * rolled[:, 0]).sum() > 0  # anticlockwise
        assert mean == pytest.approx(points[corners, 2].mean())


def test_heights_for_paraview_may_be_cut_and_logarithmic() -> None:
    surface = np.array([[0.0, 1.0], [100.0, np.inf]])
    x = np.arange(2.0)
    np.testing.assert_array_equal(parsed(vtk_polydata(surface, x, x, highest=10))["loss"], [0, 1, 10, 10])
    logs = parsed(vtk_polydata(surface, x, x, highest=10, height="log_loss"))["log_loss"]
    np.testing.assert_allclose(logs, np.log([0.1, 1.1, 10.1, 10.1]))


def test_what_is_not_finite_is_a_hole() -> None:
    surface = np.ones((4, 5))
    surface[0, 0], surface[3, 4] = np.nan, np.inf
    arrays = parsed(vtk_polydata(surface, np.arange(5.0), np.arange(4.0)))
    assert len(arrays["Points"]) == 18 and len(arrays["offsets"]) == 12 - 2
    assert np.isfinite(arrays["Points"]).all() and arrays["connectivity"].max() == 17
    assert len(parsed(vtk_polydata(np.full((2, 2), np.nan), np.arange(2.0), np.arange(2.0)))["Points"]) == 0
    with pytest.raises(InputError, match=r"\(4, 5\) does not fit a grid of 5 by 4"):
        vtk_polydata(surface, np.arange(4.0), np.arange(5.0))


def test_splines_pass_through_the_points() -> None:
    x, y = np.linspace(-1, 1, 9), np.linspace(0, 1, 5)
    surface = y[:, None] ** 3 + x**2
    fine, fine_x, fine_y = resample(surface, x, y, 33)
    np.testing.assert_allclose(fine, fine_y[:, None] ** 3 + fine_x**2, atol=1e-12)  # exact for cubics
    with pytest.raises(InputError, match="all of them finite"):
        resample(np.where(surface > 1, np.nan, surface), x, y, 33)
