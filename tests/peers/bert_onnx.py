"""A BERT of a Hugging Face folder as an ONNX file: ids [documents, tokens] to normalized means [documents, width].

    python3 tests/peers/bert_onnx.py FOLDER OUT.onnx

For measuring onnxruntime and OpenVINO. There is no attention mask: batches are of equal lengths, which spares the peers
work. Needs onnx, numpy and safetensors.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


class Graph:
    """Nodes and weights, each named by what it gives."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0

    def weight(self, values, name=None):
        self.count += 1
        name = name or f"w{self.count}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"{kind.lower()}{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def shape(self, *sizes):
        return self.weight(np.array(sizes, np.int64))


def export(folder, out):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    graph = Graph()

    def tensor(name):
        return tensors[prefix + name].astype(np.float32)

    def linear(x, name):
        product = graph.add("MatMul", x, graph.weight(tensor(f"{name}.weight").T))
        return graph.add("Add", product, graph.weight(tensor(f"{name}.bias")))

    def norm(x, name):
        weights = [graph.weight(tensor(f"{name}.{part}")) for part in ("weight", "bias")]
        return graph.add("LayerNormalization", x, *weights, axis=-1, epsilon=config["layer_norm_eps"])

    def split(x, order):
        parts = graph.add("Reshape", x, graph.shape(0, 0, heads, width // heads))
        return graph.add("Transpose", parts, perm=order)

    tokens = graph.add("Slice", graph.add("Shape", "ids"), graph.shape(1), graph.shape(2))
    places = graph.add(
        "Slice", graph.weight(tensor("embeddings.position_embeddings.weight")), graph.shape(0), tokens, graph.shape(0)
    )
    x = graph.add("Gather", graph.weight(tensor("embeddings.word_embeddings.weight")), "ids")
    x = graph.add("Add", graph.add("Add", x, graph.weight(tensor("embeddings.token_type_embeddings.weight")[0])), places)
    x = norm(x, "embeddings.LayerNorm")
    scale = graph.weight(np.array((width // heads) ** -0.5, np.float32))
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        q, k, v = (linear(x, f"{name}attention.self.{part}") for part in ("query", "key", "value"))
        scores = graph.add("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1]))
        weights = graph.add("Softmax", graph.add("Mul", scores, scale), axis=-1)
        attended = graph.add("Transpose", graph.add("MatMul", weights, split(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        attended = graph.add("Reshape", attended, graph.shape(0, 0, width))
        x = norm(graph.add("Add", linear(attended, f"{name}attention.output.dense"), x), f"{name}attention.output.LayerNorm")
        hidden = graph.add("Gelu", linear(x, f"{name}intermediate.dense"))
        x = norm(graph.add("Add", linear(hidden, f"{name}output.dense"), x), f"{name}output.LayerNorm")
    mean = graph.add("ReduceMean", x, graph.shape(1), keepdims=0)
    length = graph.add("ReduceL2", mean, graph.shape(1), keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, length], ["embedding"]))

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["documents", "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["documents", width])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    onnx.save(model, out)


if __name__ == "__main__":
    export(Path(sys.argv[1]), sys.argv[2])
