import pathlib
import tempfile
import unittest

import numpy as np

import action_matching as am
import flow

POINTS = np.random.default_rng(7).normal([3.0, -1.5], [2.0, 1.0], size=(40, 2))
TIMES = np.linspace(1.2, 4.8, 40)


class Tensor:
    """What a tensor of another library offers."""

    def __init__(self, array, device=1):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.device, 0)


class Derivatives(unittest.TestCase):
    """Everything that a model says fits its potential, by central differences."""

    def difference(self, x_step, t_step=0.0):
        model = flow.model()
        ends = [model.potential(POINTS + sign * np.array(x_step), TIMES + sign * t_step) for sign in (1, -1)]
        return ends[0] - ends[1]

    def test_velocity_is_the_slope_of_the_potential(self):
        model, step = flow.model(), 0.05
        slope = np.stack([self.difference([step, 0]), self.difference([0, step])], axis=1) / (2 * step)
        # v = scale² / T ∇s, with one scale for both dimensions.
        scale = model._native.coordinates[1][0]
        np.testing.assert_allclose(model.velocity(POINTS, TIMES), scale**2 / 4 * slope, rtol=0.02, atol=0.02)

    def test_time_derivative(self):
        np.testing.assert_allclose(
            flow.model().time_derivative(POINTS, TIMES), self.difference([0, 0], 0.02) / 0.04, rtol=0.02, atol=0.01
        )

    def test_laplacian(self):
        model, step = flow.model(), 0.02
        slope = sum(
            (model.velocity(POINTS + e, TIMES) - model.velocity(POINTS - e, TIMES))[:, axis] / (2 * step)
            for axis, e in enumerate(step * np.eye(2))
        )
        scale = model._native.coordinates[1][0]
        np.testing.assert_allclose(scale**2 / 4 * model.laplacian(POINTS, TIMES), slope, rtol=0.02, atol=0.01)

    def test_growth_and_residual(self):
        model = flow.model()
        np.testing.assert_array_equal(model.growth(POINTS, TIMES), np.zeros(40))
        residual = model.hjb_residual(POINTS, TIMES)
        scale = model._native.coordinates[1][0]
        kinetic = 0.5 * (4 / scale * model.velocity(POINTS, TIMES)) ** 2
        np.testing.assert_allclose(residual, model.time_derivative(POINTS, TIMES) + kinetic.sum(axis=1) / 4, rtol=1e-4)


class Arrays(unittest.TestCase):
    def test_results_have_the_type_of_the_points(self):
        model = flow.model()
        for dtype in (np.float32, np.float64):
            x = POINTS.astype(dtype)
            self.assertEqual(model.velocity(x, TIMES).dtype, dtype)
            self.assertEqual(model.velocity(x, TIMES).shape, (40, 2))
            self.assertEqual(model.potential(x, 2).shape, (40,))
            self.assertEqual(np.asarray(model.sample(x)).dtype, dtype)

    def test_views_lists_and_tensors_are_points_too(self):
        model, want = flow.model(), flow.model().potential(POINTS, TIMES)
        for x in (np.asfortranarray(POINTS), np.repeat(POINTS, 2, axis=0)[::2], POINTS.tolist(), Tensor(POINTS)):
            np.testing.assert_array_equal(model.potential(x, TIMES), want)

    def test_one_time_stands_for_all(self):
        model = flow.model()
        np.testing.assert_array_equal(model.potential(POINTS, 2), model.potential(POINTS, np.full(40, 2.0)))

    def test_many_rows_are_those_of_pieces(self):
        model, many = flow.model(), np.tile(POINTS, (1000, 1))
        want = np.tile(model.velocity(POINTS, 2), (1000, 1))
        np.testing.assert_allclose(model.velocity(many, 2), want, rtol=1e-5, atol=1e-6)

    def test_unusable_points_are_named(self):
        model, broken = flow.model(), POINTS.copy()
        broken[3, 1] = np.nan
        for points, text in [
            (broken, "row 3: column 1, counted from 0, is NaN"),
            (POINTS[:, :1], "has 1 columns, but the model 2 dimensions"),
            (POINTS[None], "give an array [n, d]"),
            (np.array([["a", "b"]]), "give numbers"),
            (Tensor(POINTS, device=2), "is a tensor on a GPU, cuda:0, and the model is on the CPU"),
            (Tensor(POINTS, device=8), "is a tensor on a GPU, and this is read on the CPU"),
        ]:
            for call in (lambda: model.velocity(points, 2), lambda: model.sample(points)):
                with self.assertRaises(am.InputError) as raised:
                    call()
                self.assertIn(text, str(raised.exception))
        with self.assertRaisesRegex(am.InputError, "t: shape: is .3., for 40 rows"):
            model.velocity(POINTS, [1, 2, 3])


class Sampling(unittest.TestCase):
    def test_particles_arrive(self):
        x, times = flow.data()
        moved = flow.model().sample(x[times == 1])
        self.assertEqual(moved.times, 5)
        np.testing.assert_allclose(moved.positions.mean(axis=0), [6, -3], atol=0.2)
        np.testing.assert_allclose(moved.positions.std(axis=0), [0.5, 0.5], atol=0.15)
        self.assertIsNone(moved.weights)

    def test_saved_times_come_in_order_and_lead_back(self):
        model = flow.model()
        there = model.sample(POINTS, 1, 5, save_at=[2, 3], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(there.times, [2, 3, 5])
        self.assertEqual(there.positions.shape, (3, 40, 2))
        back = model.sample(there.positions[-1], 5, 1, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(back, POINTS, atol=1e-3)

    def test_weights_are_kept(self):
        moved = flow.model().sample(POINTS, weights=np.arange(1, 41), save_at=[2, 5])
        np.testing.assert_allclose(moved.weights, np.tile(np.arange(1, 41), (2, 1)))

    def test_steps_of_a_method_are_counted(self):
        model = flow.model()
        exact = model.sample(POINTS, rtol=1e-7, atol=1e-8).positions
        error = [np.abs(model.sample(POINTS, method="heun", steps=n).positions - exact).max() for n in (4, 8)]
        self.assertGreater(error[0] / error[1], 3)
        self.assertLess(np.abs(model.sample(POINTS, method="rk4").positions - exact).max(), 1e-4)

    def test_arguments_that_contradict_each_other(self):
        for arguments, text in [
            ({"method": "leapfrog"}, 'method: is "leapfrog"'),
            ({"steps": 5, "rtol": 1e-3}, "beside tolerances"),
            ({"method": "rk4", "rtol": 1e-3}, "rtol, atol: do not apply to Rk4"),
            ({"save_at": [4, 2]}, "save_at: is not ordered"),
            ({"weights": -1}, "not all positive"),
        ]:
            with self.assertRaises(am.InputError) as raised:
                flow.model().sample(POINTS, **arguments)
            self.assertIn(text, str(raised.exception))

    def test_density_integrates_to_one(self):
        model, (x, times) = flow.model(), flow.data()
        axes = np.linspace(-1, 8, 60), np.linspace(-6, 3, 60)
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        q = np.exp(model.log_density(grid, 4.0, x[times == 1]))
        self.assertAlmostEqual(q.sum() * (9 / 59) ** 2, 1.0, delta=0.03)
        np.testing.assert_allclose(q @ grid / q.sum(), [4.5, -2.25], atol=0.3)

    def test_density_of_noise(self):
        model = flow.model()
        mean, scale = (np.array(each) for each in model._native.coordinates)
        normal = -0.5 * (((POINTS - mean) / scale) ** 2).sum(axis=1) - np.log(2 * np.pi * scale[0] ** 2)
        np.testing.assert_allclose(model.log_density(POINTS, 1, "gaussian"), normal, rtol=1e-5)
        for base, text in [
            ("uniform", "base: is 'uniform'"),
            (POINTS[:, :1], "has 1 columns"),
            (POINTS[:1], "no density"),
        ]:
            with self.assertRaisesRegex(am.InputError, text):
                model.log_density(POINTS, 1, base)

    def test_far_from_zero_float64_keeps_the_digits(self):
        x, times = flow.data(100, np.float64)
        few = {**flow.SETTINGS, "training": {"steps": 100}}
        near, far = (am.train(x + shift, times, device="cpu", **few) for shift in (0.0, 1e8))
        moved = near.sample(x).positions
        np.testing.assert_allclose(far.sample(x + 1e8).positions - 1e8, moved, atol=1e-3)
        self.assertEqual(am.evaluate(far, x + 1e8, times)["comparisons"][0]["n_particles"], 100)


class Files(unittest.TestCase):
    def test_saved_models_come_back(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, model in [("one.safetensors", flow.model()), ("several", flow.ensemble())]:
                path = pathlib.Path(folder, name)
                model.save(path)
                np.testing.assert_array_equal(am.load(path, device="cpu").velocity(POINTS, 2), model.velocity(POINTS, 2))
                with self.assertRaisesRegex(am.InputError, "already exists .*overwrite=True") as raised:
                    model.save(path)
                self.assertEqual(raised.exception.kind, "exists")
                model.save(path, overwrite=True)

    def test_missing_and_foreign_files(self):
        with self.assertRaises(am.InputError) as raised:
            am.load("no-such.safetensors")
        self.assertEqual((raised.exception.kind, raised.exception.origin), ("missing", "no-such.safetensors"))
        with self.assertRaises(ValueError):
            am.load(__file__)

    def test_devices(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.safetensors")
            flow.model().save(path)
            self.assertIn("cpu, 1 thread", am.load(path, device="cpu", threads=1).device)
            for arguments, kind in [
                ({"device": "tpu"}, "unavailable"),
                ({"device": "cpu", "precision": "bf16"}, "unsupported"),
            ]:
                with self.assertRaises(am.DeviceError) as raised:
                    am.load(path, **arguments)
                self.assertEqual(raised.exception.kind, kind)


class Ensembles(unittest.TestCase):
    def test_mean_and_spread_of_the_members(self):
        ensemble = flow.ensemble()
        self.assertEqual(len(ensemble.members), 2)
        each = np.stack([member.velocity(POINTS, TIMES) for member in ensemble.members])
        mean, spread = ensemble.velocity(POINTS, TIMES), ensemble.spread("velocity", POINTS, TIMES)
        np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(spread, each.std(axis=0, ddof=1), rtol=1e-6, atol=1e-12)
        self.assertGreater(spread.min(), 0)
        moved = np.stack([member.sample(POINTS).positions for member in ensemble.members])
        np.testing.assert_allclose(ensemble.sample(POINTS).positions, moved.mean(axis=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ensemble.sample(POINTS).spread, moved.std(axis=0, ddof=1), rtol=1e-3, atol=1e-5)

    def test_many_rows_are_compared_together(self):
        """Potentials less their means over all points of a time, and velocities piece by piece."""
        ensemble, many = flow.ensemble(), np.tile(POINTS, (500, 1))
        for quantity in ("potential", "velocity"):
            for of in (getattr(ensemble, quantity), lambda x, t: ensemble.spread(quantity, x, t)):
                few = of(POINTS, 2)
                np.testing.assert_allclose(of(many, 2)[-len(few) :], few, rtol=1e-4, atol=1e-6)

    def test_what_belongs_to_one_model(self):
        with self.assertRaisesRegex(am.InputError, "one of members"):
            flow.ensemble().log_density(POINTS, 2, "gaussian")
        with self.assertRaisesRegex(am.InputError, "quantity: is .speed"):
            flow.ensemble().spread("speed", POINTS, 2)
        with self.assertRaisesRegex(am.InputError, "this is one model"):
            flow.model().spread("velocity", POINTS, 2)


class Evaluation(unittest.TestCase):
    def test_report(self):
        x, times = flow.data()
        report = am.evaluate(flow.model(), x, times, points=100)
        (comparison,) = report["comparisons"]
        self.assertLess(comparison["equal_numbers"]["model"]["w1"], 1.0)
        self.assertGreater(comparison["equal_numbers"]["no_motion"]["w1"], 5.0)
        self.assertIn("sampling floor", str(report))
        self.assertEqual(am.evaluate(flow.model(), x, times, points=100), report)
        order = np.random.default_rng(0).permutation(len(x))
        self.assertEqual(len(am.evaluate(flow.model(), x[order], times[order], points=100)["comparisons"]), 1)
        with self.assertRaisesRegex(am.InputError, "held_out: there is no snapshot at time 3"):
            am.evaluate(flow.model(), x, times, held_out=[3])


if __name__ == "__main__":
    unittest.main()
