"""mantle-generate: the reference answers, its forms of output, and wrong input."""

import os
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import BUILD, ProgramTest, gguf, golden, run, smollm2

PROGRAM = "mantle-generate"


class Answers(ProgramTest):
    def test_reference_answers(self):
        for expected in golden()["generate"]:
            prompt = expected["prompt"]
            answer = self.succeed(PROGRAM, "-m", smollm2(), "-p", prompt, "-n", 24, "--json", "--logits").json
            self.assertEqual(answer["prompt_ids"], expected["ids"])
            self.assertEqual(answer["top10"][0][0], expected["top10_last"][0][0])
            self.assertEqual(len(answer["top10"]), 10)
            found = dict(answer["top10"])
            for token, logit in expected["top10_last"][:5]:
                self.assertAlmostEqual(found[token], logit, delta=0.3, msg=prompt)
            self.assertAlmostEqual(answer["lse"], expected["lse_last"], delta=0.3)
            same = 0
            while same < len(answer["ids"]) and answer["ids"][same] == expected["greedy24"][same]:
                same += 1
            self.assertGreaterEqual(same, 8, f"{prompt}: {answer['ids']}, expected {expected['greedy24']}")

    def test_ids_and_text_are_the_same_prompt(self):
        expected = golden()["generate"][0]
        by_text = self.succeed(PROGRAM, "-m", smollm2(), "-p", expected["prompt"], "-n", 6, "--json").json
        for separator in (" ", ",", ", "):
            ids = separator.join(map(str, expected["ids"]))
            by_ids = self.succeed(PROGRAM, "-m", smollm2(), "--ids", "-p", ids, "-n", 6, "--json").json
            self.assertEqual(by_ids, by_text)
        self.assertEqual(set(by_text), {"prompt_ids", "ids", "text", "stop"})
        self.assertEqual((len(by_text["ids"]), by_text["stop"]), (6, "max_tokens"))

    def test_the_same_bits_with_every_number_of_threads_and_with_logits(self):
        arguments = ["-m", smollm2(), "-p", "Once upon a time", "-n", 12, "--json", "--logits"]
        answers = {self.succeed(PROGRAM, *arguments, "-t", threads).out for threads in (1, 2, 3)}
        self.assertEqual(len(answers), 1)
        without = self.succeed(PROGRAM, *arguments[:-1]).json
        with_logits = self.succeed(PROGRAM, *arguments).json
        self.assertEqual(without, {key: with_logits[key] for key in without})

    def test_the_same_bits_with_every_instruction_set(self):
        answers = {}
        for isa in ("scalar", "avx2", "avxvnni", "avx512"):
            arguments = ["-m", smollm2(), "-p", "Water boils at", "-n", 3, "--json", "--logits"]
            result = run(PROGRAM, *arguments, environment={"MANTLE_ISA": isa})
            if result.code == 1 and isa != "scalar":
                self.assertIn(isa, result.err)
                continue  # This processor lacks it.
            self.assertEqual((result.code, result.err), (0, ""))
            answers.setdefault(result.out, []).append(isa)
        self.assertEqual(len(answers), 1, answers)

    def test_streamed_text_is_the_text_of_the_json(self):
        arguments = ["-m", smollm2(), "-p", "The capital of France is", "-n", 16]
        answer = self.succeed(PROGRAM, *arguments, "--json").json
        self.assertEqual(self.succeed(PROGRAM, *arguments).text, answer["text"] + "\n")

    def test_the_prompt_may_come_from_a_file_or_a_pipe(self):
        prompt = "Water boils at"
        arguments = ["-m", smollm2(), "-n", 4, "--json"]
        expected = self.succeed(PROGRAM, *arguments, "-p", prompt).out
        self.assertEqual(self.succeed(PROGRAM, *arguments, "-f", "-", stdin=prompt).out, expected)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prompt.txt"
            file.write_text(prompt, encoding="utf-8")
            self.assertEqual(self.succeed(PROGRAM, *arguments, "-f", file).out, expected)

    def test_special_tokens_only_when_asked(self):
        arguments = ["-m", smollm2(), "-p", "<|im_start|>", "-n", 0, "--json"]
        self.assertGreater(len(self.succeed(PROGRAM, *arguments).json["prompt_ids"]), 1)
        self.assertEqual(len(self.succeed(PROGRAM, *arguments, "--special").json["prompt_ids"]), 1)

    def test_an_answer_ends_by_itself(self):
        chat = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        arguments = ["-m", smollm2(), "-s", "-p", chat, "-n", 200, "--json"]
        answer = self.succeed(PROGRAM, *arguments).json
        self.assertEqual(answer["stop"], "end")
        self.assertNotIn("<|im_end|>", answer["text"])
        self.assertEqual(len(self.succeed(PROGRAM, *arguments, "--ignore-end").json["ids"]), 200)

    def test_logits_as_a_table(self):
        arguments = ["-m", smollm2(), "-p", "The capital of France is", "-n", 1, "--logits"]
        shown = self.succeed(PROGRAM, *arguments).text
        self.assertIn("' Paris'", shown.splitlines()[1])
        self.assertIn("log-sum-exp", shown)

    def test_stats_go_to_standard_error(self):
        result = run(PROGRAM, "-m", smollm2(), "-p", "The capital of France is", "-n", 8, "--stats")
        self.assertEqual(result.code, 0)
        for word in ("prompt:", "generation:", "tokens/s", "GB/s"):
            self.assertIn(word, result.err)
        self.assertNotIn("tokens/s", result.text)

    def test_the_profile_goes_to_standard_error(self):
        result = run(PROGRAM, "-m", smollm2(), "-p", "The capital of France is", "-n", 4, "--profile")
        self.assertEqual(result.code, 0)
        for word in ("qkv", "attention_output", "gate_up", "head", "sum", "calls"):
            self.assertIn(word, result.err)
        self.assertNotIn("gate_up", result.text)

    def test_an_interrupt_ends_it_in_order(self):
        command = [str(BUILD / "bin" / PROGRAM), "-m", smollm2(), "-p", "Once upon a time", "-n", "1000000", "--ignore-end"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn(b"cancel", errors)


class WrongInput(ProgramTest):
    def test_usage(self):
        self.check_help(PROGRAM)
        for arguments, says in [
            ([], ["-m MODEL is missing"]),
            (["-m", "model.gguf"], ["-p PROMPT"]),
            (["-m"], ["-m needs a value"]),
            (["-m", "model.gguf", "-p", "a", "-f", "b"], ["exclude"]),
            (["-m", "model.gguf", "-p", "a", "-n", "x"], ["--count", "'x'"]),
            (["-m", "model.gguf", "-p", "a", "-n", "-1"], ["--count -1", "out of range"]),
            (["-m", "model.gguf", "-p", "a", "-n", "99999999999999999999"], ["--count"]),
            (["-m", "model.gguf", "-p", "a", "-t", "0"], ["--threads 0", "out of range"]),
            (["-m", "model.gguf", "-p", "a", "--json=1"], ["--json takes no value"]),
            (["-m", "model.gguf", "-p", "a", "b"], ["unexpected argument 'b'"]),
        ]:
            self.fail_with(PROGRAM, *arguments, code=2, says=says)

    def test_files_that_are_no_model(self):
        with open(smollm2(), "rb") as file:
            model = file.read(40_000_000)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, content, says in [
                ("empty.gguf", b"", []),
                ("text.gguf", b"This is a text, not a model.\n" * 10, []),
                ("short.gguf", model[:1000], []),
                ("half.gguf", model, []),
                ("odd.gguf", gguf(metadata=[("general.architecture", "frobnicator")]), ["frobnicator"]),
                ("version.gguf", gguf(version=77), ["77"]),
            ]:
                (folder / file).write_bytes(content)
                self.fail_with(PROGRAM, "-m", folder / file, "-p", "a", says=[file, *says])
            self.fail_with(PROGRAM, "-m", folder / "missing.gguf", "-p", "a", says=["missing.gguf"])
            self.fail_with(PROGRAM, "-m", folder, "-p", "a", says=[name, "folder"])

    def test_prompts_that_cannot_be_computed(self):
        model = ["-m", smollm2(), "-n", 1]
        self.fail_with(PROGRAM, *model, "-p", "", says=["empty"])
        self.fail_with(PROGRAM, *model, "-f", "-", stdin=b"abc\xff\xfe", says=["UTF-8", "3"])
        self.fail_with(PROGRAM, *model, "--ids", "-p", "1 2 x", says=["'x'"])
        self.fail_with(PROGRAM, *model, "--ids", "-p", "1 2 49152", says=["49152"])
        self.fail_with(PROGRAM, *model, "--ids", "-p", "1 -2", says=["-2"])
        self.fail_with(PROGRAM, *model, "--ids", "-p", "1 99999999999", says=["99999999999"])
        self.fail_with(PROGRAM, *model, "-p", "a b c d e f g", "-c", 4, says=["4"])
        self.fail_with(PROGRAM, *model, "-f", "/nowhere/prompt.txt", says=["/nowhere/prompt.txt"])

    def test_an_instruction_set_that_does_not_exist(self):
        environment = {"MANTLE_ISA": "mmx"}
        self.fail_with(PROGRAM, "-m", smollm2(), "-p", "a", environment=environment, says=["MANTLE_ISA", "mmx", "avx2"])

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_a_full_disk(self):
        command = [str(BUILD / "bin" / PROGRAM), "-m", smollm2(), "-p", "a", "-n", "2", "--json"]
        with open("/dev/full", "wb") as full:
            finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
        self.assertEqual(finished.returncode, 1)
        self.assertIn(b"cannot write", finished.stderr)


if __name__ == "__main__":
    unittest.main()
