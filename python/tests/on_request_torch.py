"""Tests that need torch: ``python python/tests/on_request_torch.py``, where the wheel is installed."""

import tempfile
import unittest
import warnings

import numpy as np
import torch

import action_matching as am
import flow
from action_matching.torch import Potential

X = np.random.default_rng(7).normal([3.0, -1.5], [2.0, 1.0], size=(200, 2))
T = np.linspace(1.0, 5.0, 200)


class Torch(unittest.TestCase):
    def test_every_kind_of_network_is_the_same_in_torch(self):
        """1e-5 of the largest value, which is what float32 leaves of either."""
        fourier = {"kind": "fourier", "frequencies": [0.5, 1.5]}
        for activation in ("silu", "tanh", "softplus", "gelu", "sin"):
            for head in ("scalar", "quadratic", "dot"):
                for embedding in ("raw", fourier):
                    network = {"hidden": [24, 16], "activation": activation, "head": head, "time_embedding": embedding}
                    # Of so short a training the run warns.
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", am.ActionMatchingWarning)
                        model = am.train(
                            *flow.data(100), model=network, objective={"pairing": "ot"}, training={"steps": 30}
                        )
                    with self.subTest(**network):
                        self.check(model, model.to_torch().double())

    def check(self, model, potential):
        x = torch.tensor(X, requires_grad=True)
        t = torch.tensor(T, requires_grad=True)
        s = potential(x, t)
        (ds_dt,) = torch.autograd.grad(s.sum(), t)
        laplacian = torch.autograd.functional.hessian(lambda x: potential(x, T).sum(), x.detach())
        laplacian = torch.einsum("nini->n", laplacian)
        for got, want in [
            (s, model.potential(X, T)),
            (potential.velocity(x, t), model.velocity(X, T)),
            (ds_dt, model.time_derivative(X, T)),
            (laplacian, model.laplacian(X, T)),
        ]:
            got = got.detach().numpy()
            self.assertLess(np.abs(got - want).max(), 1e-5 * max(1.0, np.abs(want).max()))

    def test_growth_and_other_costs(self):
        for objective in ({"growth": 0.5, "pairing": "independent"}, {"cost_exponent": 1.5, "pairing": "independent"}):
            model = am.train(*flow.data(100), objective=objective, model={"hidden": [16]}, training={"steps": 50})
            potential = model.to_torch().double()
            for got, want in [
                (potential.velocity(torch.tensor(X), T), model.velocity(X, T)),
                (potential.growth(torch.tensor(X), T), model.growth(X, T)),
            ]:
                np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-4, atol=1e-5)

    def test_float32_and_training(self):
        potential = flow.model().to_torch()
        x = torch.tensor(X, dtype=torch.float32)
        want = flow.model().velocity(X, 2)
        np.testing.assert_allclose(potential.velocity(x, 2.0).detach(), want, rtol=1e-3, atol=1e-4)
        potential.velocity(x, 2.0).square().sum().backward()
        self.assertTrue(all(p.grad is not None and p.grad.isfinite().all() for p in list(potential.parameters())[:-1]))
        with torch.no_grad():
            self.assertFalse(potential.velocity(x, 2.0).requires_grad)

    def test_tensors_go_in_and_out_without_copies(self):
        x = torch.tensor(X)
        v = torch.from_dlpack(flow.model().velocity(x, torch.tensor(T)))
        np.testing.assert_array_equal(v.numpy(), flow.model().velocity(X, T))
        with self.assertRaisesRegex(am.InputError, "detach"):
            flow.model().velocity(x.requires_grad_(), 2)

    @unittest.skipUnless(torch.cuda.is_available(), "torch sees no GPU")
    def test_tensors_on_a_gpu_stay_there(self):
        with tempfile.TemporaryDirectory() as folder:
            flow.model().save(f"{folder}/model.safetensors")
            model = am.load(f"{folder}/model.safetensors", device="cuda:0")
        on_host = X.astype(np.float32)
        x = torch.tensor(on_host, device="cuda:0")
        for quantity in ("potential", "velocity", "time_derivative", "laplacian", "growth"):
            got = torch.from_dlpack(getattr(model, quantity)(x, T))
            self.assertEqual((got.device, got.dtype), (x.device, torch.float32))
            np.testing.assert_array_equal(got.cpu().numpy(), getattr(model, quantity)(on_host, T))
        # What another stream of torch has not finished yet is waited for, and the memory outlives the array.
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(100_000_000)
            later = x * 1.5
            moved = torch.from_dlpack(model.sample(later).positions)
            np.testing.assert_array_equal(moved.cpu().numpy(), model.sample(on_host * np.float32(1.5)).positions)
        with self.assertRaisesRegex(am.InputError, r"\.float\(\)"):
            model.velocity(x.double(), 2)
        with self.assertRaisesRegex(am.InputError, "contiguous"):
            model.velocity(x.T.contiguous().T, 2)

    def test_a_file_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            flow.model().save(f"{folder}/model.safetensors")
            potential = Potential.load(f"{folder}/model.safetensors")
        self.assertEqual(list(potential.state_dict())[0], "net.0.weight")


if __name__ == "__main__":
    unittest.main()
