"""Points on a GPU, in and out by DLPack. Needs a GPU, which may be the virtual one of ``tests/vgpu``."""

import contextlib
import gc
import pathlib
import tempfile
import threading
import unittest
import warnings

import numpy as np

import action_matching as am
import flow
from gpu_tensor import CUDA, Consumer, Tensor, free_memory

POINTS = np.random.default_rng(7).normal([3.0, -1.5], [2.0, 1.0], size=(130, 2)).astype(np.float32)
TIMES = np.linspace(1.2, 4.8, 130)
FOURIER = {"kind": "fourier", "frequencies": [0.5, 1.5]}
ON_GPU = ("potential", "velocity", "time_derivative", "growth")
BY_WAY_OF_THE_HOST = ("laplacian", "hjb_residual")
PRECISIONS = ("f32", "tf32", "bf16", "f16")
FEW_STEPS = {"method": "heun", "steps": 3}


@contextlib.contextmanager
def saved(**settings):
    """The path of a model, hardly trained; its scales and means are not 1 and 0."""
    settings = {"model": {"hidden": [24]}, "training": {"steps": 30}, **settings}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", am.ActionMatchingWarning)
        path = pathlib.Path(folder, "model")
        am.train(*flow.data(60), device="cpu", **settings).save(path)
        yield path


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


class OnGpu(unittest.TestCase):
    def assert_same(self, got, want):
        """`got` is on the GPU, and has the bits of `want`, which is not."""
        self.assertIsInstance(got, am.DeviceArray)
        self.assertEqual((got.shape, got.dtype, got.device), (want.shape, np.float32, "cuda:0"))
        np.testing.assert_array_equal(bits(got.numpy()), bits(want))


class Values(OnGpu):
    def check(self, model, quantities):
        for quantity in quantities:
            of = getattr(model, quantity)
            with self.subTest(quantity=quantity, model=repr(model)):
                self.assert_same(of(Tensor(POINTS), TIMES), of(POINTS, TIMES))

    def test_all_have_the_bits_of_points_on_the_host(self):
        objective = {"growth": 0.3, "pairing": "independent"}
        with saved(objective=objective, model={"hidden": [70], "time_embedding": FOURIER}) as path:
            for precision in PRECISIONS:
                self.check(am.load(path, device="cuda", precision=precision), ON_GPU)
            model = am.load(path, device="cuda")
            self.check(model, BY_WAY_OF_THE_HOST)
            self.assert_same(model.velocity(Tensor(POINTS), 2.5), model.velocity(POINTS, 2.5))

    def test_costs_that_only_the_host_forms(self):
        with saved(objective={"cost_exponent": 1.5, "pairing": "independent"}) as path:
            self.check(am.load(path, device="cuda"), ("potential", "velocity"))

    def test_particles(self):
        objective = {"growth": 0.3, "pairing": "independent"}
        for settings in ({}, {"objective": objective}):
            with saved(**settings) as path:
                for precision in ("f32", "bf16"):
                    model = am.load(path, device="cuda", precision=precision)
                    way = {"save_at": [2, 4], "t1": 5, **FEW_STEPS}
                    want, got = model.sample(POINTS, 1, **way), model.sample(Tensor(POINTS), 1, **way)
                    self.assert_same(got.positions, want.positions)
                    self.assert_same(got.positions[1], want.positions[1])
                    np.testing.assert_array_equal(np.asarray(got), want.positions)
                    np.testing.assert_array_equal(got.times, want.times)
                    self.assertEqual(got.log_weights is None, want.log_weights is None)
                    if want.log_weights is not None:
                        self.assert_same(got.log_weights, want.log_weights)
                        np.testing.assert_array_equal(got.weights, want.weights)
        own = {"weights": np.arange(1, 131), **FEW_STEPS}
        want, got = model.sample(POINTS, **own), model.sample(Tensor(POINTS), **own)
        self.assert_same(got.positions, want.positions)
        np.testing.assert_array_equal(got.log_weights, want.log_weights)

    def test_error_control_and_density(self):
        with saved() as path:
            model = am.load(path, device="cuda", precision="f32")
        few, way = POINTS[:9], {"rtol": 1e-2, "atol": 1e-2}
        self.assert_same(model.sample(Tensor(few), **way).positions, model.sample(few, **way).positions)
        self.assert_same(model.log_density(Tensor(few), 1.2, Tensor(POINTS)), model.log_density(few, 1.2, POINTS))

    def test_ensembles(self):
        with saved(training={"steps": 30, "seeds": 2}) as path:
            model = am.load(path, device="cuda")
        self.check(model, ("velocity",))
        self.assert_same(model.spread("potential", Tensor(POINTS), 2), model.spread("potential", POINTS, 2))
        want, got = model.sample(POINTS, **FEW_STEPS), model.sample(Tensor(POINTS), **FEW_STEPS)
        self.assert_same(got.positions, want.positions)
        self.assert_same(got.spread, want.spread)

    def test_results_are_points_too(self):
        with saved() as path:
            model = am.load(path, device="cuda")
        moved = model.sample(Tensor(POINTS), **FEW_STEPS)
        want = model.velocity(model.sample(POINTS, **FEW_STEPS).positions, 5)
        self.assert_same(model.velocity(moved.positions, 5), want)


class Protocol(OnGpu):
    @classmethod
    def setUpClass(cls):
        with saved() as path:
            cls.on_cpu, cls.model = am.load(path, device="cpu"), am.load(path, device="cuda")

    def refused(self, text, points, model=None):
        model = model or self.model
        for call in (lambda: model.velocity(points, 2), lambda: model.sample(points)):
            with self.assertRaises(am.InputError) as raised:
                call()
            self.assertIn(text, str(raised.exception))

    def test_every_kind_of_tensor_is_read_and_released_once(self):
        want = self.model.velocity(POINTS, TIMES)
        for tensor in (
            Tensor(POINTS),
            Tensor(POINTS, versioned=False),
            Tensor(POINTS, strides=(2, 1)),
            Tensor(POINTS, offset=64),
        ):
            self.assert_same(self.model.velocity(tensor, TIMES), want)
            # 1 is the default stream.
            self.assertEqual((tensor.n_released, tensor.streams[-1]), (1, 1))

    def test_few_points_and_none(self):
        self.assert_same(self.model.velocity(Tensor(POINTS[:1]), 2), self.model.velocity(POINTS[:1], 2))
        self.assert_same(self.model.velocity(Tensor(POINTS[:0]), 2), self.model.velocity(POINTS[:0], 2))
        one_row = Tensor(POINTS[:1], strides=(77, 1))  # the stride of an axis of one element says nothing
        self.assert_same(self.model.velocity(one_row, 2), self.model.velocity(POINTS[:1], 2))

    def test_tensors_that_cannot_be_used_are_named(self):
        for text, tensor in [
            ("device: is a tensor on cuda:1, and the model is on cuda:0", Tensor(POINTS, device=(CUDA, 1))),
            ("is float64 on a GPU, where numbers are float32 (convert it: .float()", Tensor(POINTS.astype("f8"))),
            ("is float16 on a GPU", Tensor(POINTS.astype("f2"))),
            ("is int32 on a GPU", Tensor(POINTS.astype("i4"))),
            ("strides: are [1, 130], not those of rows (copy it: .contiguous())", Tensor(POINTS, strides=(1, 130))),
            ("shape: is [1, 130, 2] (give an array [n, d])", Tensor(POINTS[None])),
            ("has 3 columns, but the model 2 dimensions", Tensor(POINTS[:129].reshape(86, 3))),
            ("is in version 2 of DLPack", Tensor(POINTS, major=2)),
        ]:
            self.refused(text, tensor)
            # Whatever was handed out is released.
            self.assertEqual(tensor.n_released, len(tensor.streams), text)

    def test_points_that_are_not_finite_are_named(self):
        broken = POINTS.copy()
        broken[120, 1], broken[121, 0] = np.inf, np.nan
        self.refused("row 120: column 1, counted from 0, is inf", Tensor(broken))
        self.refused("row 120: column 1, counted from 0, is inf", broken)

    def test_the_model_is_there_too(self):
        self.refused('is on the CPU (load the model there: load(path, device="cuda:0")', Tensor(POINTS), self.on_cpu)

    def test_times_and_data_are_read_on_the_host(self):
        for call in (
            lambda: self.model.velocity(POINTS, Tensor(TIMES)),
            lambda: am.evaluate(self.model, Tensor(POINTS), TIMES),
        ):
            with self.assertRaisesRegex(am.InputError, "is a tensor on a GPU, and this is read on the CPU"):
                call()

    def test_a_capsule_is_consumed_once(self):
        tensor = Tensor(POINTS, reuse=True)
        self.model.velocity(tensor, 2)
        with self.assertRaisesRegex(am.InputError, "one that was consumed before"):
            self.model.velocity(tensor, 2)
        self.assertEqual(tensor.n_released, 1)

    def test_a_tensor_that_refuses_is_quoted(self):
        class Refusing(Tensor):
            def __dlpack__(self, **options):
                raise BufferError("requires gradient")

        with self.assertRaisesRegex(am.InputError, r"x: DLPack: requires gradient .*\.detach"):
            self.model.velocity(Refusing(POINTS), 2)

    def test_results_are_taken_with_and_without_version(self):
        array, want = self.model.velocity(Tensor(POINTS), TIMES), self.model.velocity(POINTS, TIMES)
        self.assertEqual(array.__dlpack_device__(), (CUDA, 0))
        for options, is_versioned in [({}, False), ({"max_version": (0, 8)}, False), ({"max_version": (1, 3)}, True)]:
            taken = Consumer(array.__dlpack__(**options))
            self.assertEqual((taken.kind.NAME == b"dltensor_versioned", taken.device), (is_versioned, (CUDA, 0)))
            self.assertEqual((taken.shape, taken.strides, taken.type), ((130, 2), (2, 1), (2, 32, 1)))
            np.testing.assert_array_equal(taken.numpy(), want)
            taken.release()

    def test_memory_lives_as_long_as_the_last_who_has_it(self):
        want = self.model.sample(POINTS, save_at=[2, 5], **FEW_STEPS).positions
        slab = self.model.sample(Tensor(POINTS), save_at=[2, 5], **FEW_STEPS).positions[1]
        capsule, unused = slab.__dlpack__(stream=1), slab.__dlpack__(max_version=(1, 0))
        del slab
        gc.collect()
        taken = Consumer(capsule)
        del capsule, unused  # one was consumed, the other releases itself
        gc.collect()
        np.testing.assert_array_equal(taken.numpy(), want[1])
        # Consumers release in any thread.
        thread, before = threading.Thread(target=taken.release), free_memory()
        thread.start()
        thread.join()
        if "Virtual" in self.model.device:  # others free more at a time
            self.assertGreaterEqual(free_memory() - before, want.nbytes)

    def test_copies_are_copies(self):
        array = self.model.velocity(Tensor(POINTS), 2)
        shared, copied = (Consumer(array.__dlpack__(max_version=(1, 0), copy=copy)) for copy in (False, True))
        self.assertEqual([taken.managed.flags for taken in (shared, copied)], [0, 2])
        self.assertNotEqual(shared.data, copied.data)
        np.testing.assert_array_equal(shared.numpy(), copied.numpy())
        shared.release(), copied.release()

    def test_streams_and_other_devices(self):
        array = self.model.velocity(Tensor(POINTS), 2)
        for stream in (None, -1, 1, 2, 1 << 40):
            array.__dlpack__(stream=stream)
        array.__dlpack__(dl_device=(CUDA, 0))
        for stream in (0, -2):
            with self.assertRaisesRegex(ValueError, "is none of CUDA"):
                array.__dlpack__(stream=stream)
        for device in ((1, 0), (CUDA, 1)):
            with self.assertRaisesRegex(BufferError, r"lies on cuda:0 .numpy"):
                array.__dlpack__(dl_device=device)

    def test_arrays_say_what_they_are(self):
        array = self.model.velocity(Tensor(POINTS), 2)
        self.assertEqual((len(array), array.ndim), (130, 2))
        self.assertEqual(repr(array), "<action_matching.DeviceArray [130, 2] float32 on cuda:0>")
        np.testing.assert_array_equal(array[-1].numpy(), array.numpy()[-1])
        self.assertEqual(np.asarray(array, dtype=np.float64).dtype, np.float64)
        for index in (130, -131):
            with self.assertRaises(IndexError):
                array[index]
        with self.assertRaises(IndexError):
            array[0][0]


if __name__ == "__main__":
    unittest.main()
