import logging
import os
import pathlib
import signal
import tempfile
import threading
import time
import unittest
import warnings

import numpy as np

import action_matching as am
import flow


def train(**arguments):
    settings = {**flow.SETTINGS, **arguments.pop("settings", {})}
    return am.train(*flow.data(100), device="cpu", threads=1, **settings, **arguments)


FEW_ROWS = {"interior_rows": 64, "boundary_rows": 64}
QUICK = {"training": {"steps": 40, **FEW_ROWS}}
ENDLESS = {"training": {"steps": 10_000_000, **FEW_ROWS}, "output": {"checkpoint_every": 1_000_000}}


class Settings(unittest.TestCase):
    def test_errors_are_those_of_the_program(self):
        for settings, text in [
            (
                {"training": {"stepz": 1}},
                "settings: training.stepz: is not a key of the configuration (did you mean training.steps?)",
            ),
            ({"training": {"steps": -1}}, "settings: training.steps: "),
            ({"objective": {"pairing": "hungarian"}}, "settings: objective.pairing: "),
            ({"optimizer": {"rate": 1}}, "settings: optimizer: is not a key"),
            ({"training": {"steps": {1}}}, "settings: values: "),
            ({"output": {"folder": "x"}}, "settings: output.folder: is given twice"),
        ]:
            with self.assertRaises(am.InputError) as raised:
                train(settings=settings)
            self.assertIn(text, str(raised.exception))
            self.assertIsInstance(raised.exception, ValueError)

    def test_data_that_cannot_be_used(self):
        x, times = flow.data(100)
        broken = x.copy()
        broken[5, 0] = np.inf
        late = np.where(np.arange(200) == 7, np.nan, times)
        for arguments, text in [
            ((broken, times), "x: row 5: column 0, counted from 0, is inf (leave such rows out)"),
            ((x, late), "times: row 7: is nan (leave such rows out)"),
            ((x, np.zeros(200)), "times: holds one time"),
            ((x, times[:-1]), "times: shape: is [199], for 200 rows"),
        ]:
            with self.assertRaises(am.InputError) as raised:
                am.train(*arguments, **flow.SETTINGS)
            self.assertIn(text, str(raised.exception))

    def test_seed_and_numpy_numbers(self):
        a, b, c = (train(settings=QUICK, seed=seed).potential([[0, 0]], 2)[0] for seed in (1, np.int64(1), 2))
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)

    def test_conditions(self):
        x, times = flow.data(100)
        dose = np.tile([0.0, 1.0], 100)
        model = am.train(x, times, conditions={"dose": dose}, **{**flow.SETTINGS, **QUICK})
        self.assertEqual(model.conditions[0][0], "dose")
        with self.assertRaisesRegex(am.InputError, r"model.under"):
            model.sample(x)
        self.assertNotEqual(*(model.under(dose=dose).potential([[0, 0]], 2)[0] for dose in (0, 1)))
        with self.assertRaisesRegex(am.InputError, "time: is no condition of the model"):
            model.under(time=1)


class Runs(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.run_folder = pathlib.Path(temporary.name, "run")
        self.data = self.run_folder.with_name("run.npz")

    def test_a_run_in_its_folder(self):
        model = train(out=self.run_folder, settings=QUICK)
        self.assertEqual(model.run, self.run_folder)
        again = am.load(self.run_folder, device="cpu")
        x, times = flow.data(100)
        np.testing.assert_array_equal(again.velocity(x, times), model.velocity(x, times))
        with np.load(self.data) as stored:
            np.testing.assert_array_equal(stored["samples"], x)
        with self.assertRaisesRegex(am.InputError, "resume=True.*overwrite=True.*out") as raised:
            train(out=self.run_folder, settings=QUICK)
        self.assertEqual(raised.exception.kind, "exists")
        train(out=self.run_folder, settings=QUICK, overwrite=True, seed=9)
        self.assertTrue((am.load(self.run_folder, device="cpu").velocity(x, 2) != model.velocity(x, 2)).any())
        with self.assertRaisesRegex(am.InputError, "other data"):
            am.train(x + 1, times, out=self.run_folder, resume=True, **{**flow.SETTINGS, **QUICK})

    def test_files_of_others_are_left_alone(self):
        self.data.write_text("mine")
        for arguments in ({}, {"overwrite": True}, {"resume": True}):
            with self.assertRaisesRegex(am.InputError, "already exists"):
                train(out=self.run_folder, settings=QUICK, **arguments)
        self.assertEqual(self.data.read_text(), "mine")
        self.data.unlink()
        self.run_folder.mkdir()
        (self.run_folder / "thesis.tex").write_text("mine")
        with self.assertRaises(am.InputError):
            train(out=self.run_folder, settings=QUICK)
        self.assertFalse(self.data.exists())

    def test_control_c_keeps_a_checkpoint_that_resume_goes_on_from(self):
        interrupted = []

        def interrupt(progress):
            if progress.units == "steps" and not interrupted:
                interrupted.append(time.monotonic())
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

        with self.assertRaises(KeyboardInterrupt):
            train(out=self.run_folder, settings=ENDLESS, progress=interrupt)
        self.assertLess(time.monotonic() - interrupted[0], 2.0)
        self.assertTrue(list((self.run_folder / "checkpoints").iterdir()))
        seen = []
        with self.assertRaisesRegex(RuntimeError, "enough"):
            train(out=self.run_folder, settings=ENDLESS, resume=True, progress=self.stop_at_once(seen))
        self.assertGreater(seen[0], 0)

    def stop_at_once(self, seen):
        def stop(progress):
            if progress.units == "steps":
                seen.append(progress.done)
                raise RuntimeError("enough")

        return stop

    def test_control_c_ends_sampling(self):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            flow.model().sample(np.zeros((200_000, 2)), method="rk4", steps=100_000)
        self.assertLess(time.monotonic() - began, 3.0)


class Events(unittest.TestCase):
    def test_progress_warnings_and_notices(self):
        seen = []
        with self.assertLogs("action_matching", logging.INFO) as logged, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(settings={**QUICK, "objective": {"path": "nearest"}}, progress=seen.append)
        self.assertTrue(any("steps 0 to 40 on cpu" in line for line in logged.output), logged.output)
        self.assertTrue(any(issubclass(w.category, am.ActionMatchingWarning) for w in caught), caught)
        steps = [event for event in seen if event.units == "steps"]
        self.assertEqual((steps[-1].done, steps[-1].total), (40, 40))
        self.assertIn("loss", steps[-1].text)

    def test_other_threads_go_on(self):
        counted, is_over = [0], threading.Event()

        def count():
            while not is_over.is_set():
                counted[0] += 1
                time.sleep(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        seconds = time.monotonic()
        flow.model().sample(np.zeros((20_000, 2)), method="rk4", steps=100)
        seconds = time.monotonic() - seconds
        is_over.set()
        thread.join()
        self.assertGreater(counted[0], 50 * seconds)


if __name__ == "__main__":
    unittest.main()
