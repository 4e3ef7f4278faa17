//! BERT from Hugging Face folders: single and sharded, with and without modules, prompts, and what is missing in them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;

use embed_common::reference::{Kind, Reference, WIDTH};
use embed_common::{embed, embedder, runtime, says, try_embed};
use mantle::base::error::{Error, Status};
use mantle::format::dtype::DataType;
use mantle::model::embed::EmbedOptions;
use mantle::model::model::{Model, ModelOptions};
use mantle::model::names::Names;
use mantle::model::pooling::Pooling;
use mantle::text::tokenizer::of_model;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Tensors = BTreeMap<String, (usize, usize, Vec<f32>)>;

/// The bytes of a safetensors file.
fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (rows, columns, values)) in tensors {
        let start = data.len();
        values.iter().for_each(|value| data.extend(value.to_le_bytes()));
        let shape = match rows {
            1 => vec![*columns],
            _ => vec![*rows, *columns],
        };
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

/// A BERT's tensors under the names of `transformers`.
fn bert(prefix: &str) -> Tensors {
    let names = Names::Bert(prefix.to_owned());
    let tensors = Reference::new(Kind::Bert).tensors.into_iter();
    tensors
        .map(|(name, tensor)| (names.of(&name).into_owned(), tensor))
        .collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A folder with a BERT and these files.
fn folder(test: &str, prefix: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = gguf_support::folder(&format!("embed_folder_{test}"));
    write(&folder, "model.safetensors", &safetensors(&bert(prefix)));
    files
        .iter()
        .for_each(|(name, text)| write(&folder, name, text.as_bytes()));
    folder
}

const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 160, "max_position_embeddings": 600, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
const MODULES: &str = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;
const POOLING: &str = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;

fn open_folder(folder: &Path) -> Result<Arc<Model>, Error> {
    Model::open(&runtime(1, None), folder, ModelOptions::default())
}

#[test]
fn a_folder_gives_the_same_bits_as_gguf_with_and_without_prefix() {
    let tokens = [3, 1, 4, 15, 9, 26];
    let model = Model::open_memory(
        &runtime(1, None),
        &Reference::new(Kind::Bert).gguf(),
        ModelOptions::default(),
    )
    .unwrap();
    let expected = embed(&mut embedder(&model), &[&tokens]);
    for (test, prefix) in [("plain", ""), ("prefixed", "bert.")] {
        let folder = folder(
            test,
            prefix,
            &[
                ("config.json", CONFIG),
                ("modules.json", MODULES),
                ("1_Pooling/config.json", POOLING),
            ],
        );
        let model = open_folder(&folder).unwrap();
        // `modules.json` has no module that normalizes; the file of the other model says nothing about it.
        assert!(!model.embedding().unwrap().normalize);
        let options = EmbedOptions {
            normalize: Some(true),
            ..EmbedOptions::default()
        };
        assert_eq!(
            try_embed(&mut embedder(&model), &[&tokens], &options).unwrap(),
            expected
        );
    }
}

#[test]
fn a_folder_that_lacks_a_file_names_it() {
    let error = open_folder(&folder("no_config", "", &[])).err().unwrap();
    says(&error, Status::NotFound, &["no_config", "config.json"]);
    let files = [("config.json", CONFIG), ("modules.json", MODULES)];
    let error = open_folder(&folder("no_pooling", "", &files)).err().unwrap();
    says(&error, Status::NotFound, &["1_Pooling", "config.json"]);
    let model = open_folder(&folder("no_tokenizer", "", &[("config.json", CONFIG)])).unwrap();
    says(
        &of_model(&model).err().unwrap(),
        Status::NotFound,
        &["tokenizer.json"],
    );
    let dense = MODULES.replace("Pooling\"", "Dense\"");
    let error = open_folder(&folder(
        "dense",
        "",
        &[("config.json", CONFIG), ("modules.json", &dense)],
    ));
    says(
        &error.err().unwrap(),
        Status::Unsupported,
        &["modules.json", "Dense"],
    );
    for (name, from, to, word) in [
        ("type", "\"bert\"", "\"roberta\"", "roberta"),
        ("act", "\"gelu\"", "\"relu\"", "relu"),
        (
            "layers",
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": -3",
            "num_hidden_layers",
        ),
        ("width", "\"hidden_size\": 64,", "", "hidden_size"),
        ("json", "{", "{{", "JSON"),
    ] {
        let config = CONFIG.replacen(from, to, 1);
        let error = open_folder(&folder(name, "", &[("config.json", &config)]))
            .err()
            .unwrap();
        assert!(error.to_string().contains(word), "{error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
    let folder = folder("prefix", "model.", &[("config.json", CONFIG)]);
    says(
        &open_folder(&folder).err().unwrap(),
        Status::Format,
        &["embeddings.word_embeddings.weight"],
    );
}

const PLAIN: &[(&str, &str)] = &[
    ("config.json", CONFIG),
    ("modules.json", MODULES),
    ("1_Pooling/config.json", POOLING),
];

/// `PLAIN` with a dense layer from 64 to 24 values behind the pooling.
fn with_dense(test: &str, config: &str) -> PathBuf {
    let modules = MODULES.replace(
        "]",
        r#", {"type": "sentence_transformers.models.Dense", "path": "2_Dense"},
        {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"}]"#,
    );
    let folder = folder(test, "", PLAIN);
    write(&folder, "modules.json", modules.as_bytes());
    write(&folder, "2_Dense/config.json", config.as_bytes());
    folder
}

const DENSE: &str = r#"{"in_features": 64, "out_features": 24, "bias": true,
    "activation_function": "torch.nn.modules.activation.Tanh"}"#;

fn dense_weights() -> Tensors {
    let values = |count: usize, step: f32| (0..count).map(|i| ((i as f32 * step).sin()) * 0.2).collect();
    let mut tensors = Tensors::new();
    tensors.insert("linear.weight".to_owned(), (24, 64, values(24 * 64, 0.37)));
    tensors.insert("linear.bias".to_owned(), (1, 24, values(24, 1.7)));
    tensors
}

#[test]
fn a_dense_module_is_applied_behind_the_pooling() {
    let tokens = [3, 1, 4, 15, 9, 26, 5];
    let plain = EmbedOptions {
        normalize: Some(false),
        ..EmbedOptions::default()
    };
    let pooled = open_folder(&folder("no_dense", "", PLAIN)).unwrap();
    let pooled = try_embed(&mut embedder(&pooled), &[&tokens], &plain)
        .unwrap()
        .remove(0);
    let folder = with_dense("dense", DENSE);
    write(
        &folder,
        "2_Dense/model.safetensors",
        &safetensors(&dense_weights()),
    );
    let model = open_folder(&folder).unwrap();
    let info = model.embedding().unwrap();
    assert_eq!(
        (info.dimensions, info.dense_layers, info.normalize),
        (24, 1, true)
    );
    let (probed, _, _) = Model::probe(&folder, mantle::format::container::LoadMode::Map).unwrap();
    assert_eq!(probed.embeddings.unwrap().dimensions, 24);
    let row = try_embed(&mut embedder(&model), &[&tokens], &plain)
        .unwrap()
        .remove(0);
    let tensors = dense_weights();
    let (weights, bias) = (&tensors["linear.weight"].2, &tensors["linear.bias"].2);
    let expected: Vec<f64> = (0..24)
        .map(|i| {
            let products = weights[i * 64..][..64].iter().zip(&pooled);
            let sum: f64 = products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            (sum + f64::from(bias[i])).tanh()
        })
        .collect();
    for (value, expected) in row.iter().zip(&expected) {
        assert!(
            (f64::from(*value) - expected).abs() < 1e-5,
            "{value} for {expected}"
        );
    }
    // The folder normalizes, and a cut embedding is normalized anew.
    let cut = EmbedOptions {
        dimensions: 10,
        ..EmbedOptions::default()
    };
    let cut = try_embed(&mut embedder(&model), &[&tokens], &cut)
        .unwrap()
        .remove(0);
    let length = expected[..10]
        .iter()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    for (value, expected) in cut.iter().zip(&expected) {
        assert!((f64::from(*value) - expected / length).abs() < 1e-5);
    }
    // Without pooling there is no dense layer, and a row has the width of the model.
    let each = EmbedOptions {
        pooling: Some(Pooling::None),
        ..EmbedOptions::default()
    };
    let rows = try_embed(&mut embedder(&model), &[&tokens], &each).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (7, WIDTH));
    // Its memory counts as that of the model.
    let limited = ModelOptions {
        memory_limit: model.info().packed_bytes - 1,
        ..ModelOptions::default()
    };
    let error = Model::open(&runtime(1, None), &folder, limited).err().unwrap();
    says(&error, Status::NoMemory, &["2_Dense", "limit"]);
}

#[test]
fn a_dense_module_that_does_not_fit_is_refused() {
    let error = open_folder(&with_dense("dense_lacks_weights", DENSE))
        .err()
        .unwrap();
    says(&error, Status::NotFound, &["2_Dense", "model.safetensors"]);
    let plain = folder("dense_lacks_config", "", PLAIN);
    let modules = MODULES.replace("]", r#", {"type": "x.Dense", "path": "2_Dense"}]"#);
    write(&plain, "modules.json", modules.as_bytes());
    says(
        &open_folder(&plain).err().unwrap(),
        Status::NotFound,
        &["2_Dense", "config.json"],
    );
    let narrow = DENSE.replace("64", "63");
    let error = open_folder(&with_dense("dense_narrow", &narrow)).err().unwrap();
    says(&error, Status::Format, &["2_Dense/config.json", "63", "64"]);
    let folder = with_dense("dense_shape", DENSE);
    let mut tensors = dense_weights();
    tensors.insert("linear.bias".to_owned(), (1, 23, vec![0.0; 23]));
    write(&folder, "2_Dense/model.safetensors", &safetensors(&tensors));
    says(
        &open_folder(&folder).err().unwrap(),
        Status::Format,
        &["2_Dense", "linear.bias", "23"],
    );
    // Modules that lead out of the folder are not followed.
    let folder = self::folder("dense_outside", "", PLAIN);
    let modules = MODULES.replace("]", r#", {"type": "x.Dense", "path": "../2_Dense"}]"#);
    write(&folder, "modules.json", modules.as_bytes());
    says(
        &open_folder(&folder).err().unwrap(),
        Status::InvalidArgument,
        &["../2_Dense"],
    );
    for (test, modules, word) in [
        (
            "order",
            MODULES.replace(
                "]",
                r#", {"type": "x.Normalize"}, {"type": "x.Dense", "path": "2"}]"#,
            ),
            "order",
        ),
        (
            "none",
            r#"[{"type": "x.Transformer"}]"#.to_owned(),
            "no module Pooling",
        ),
        (
            "other",
            MODULES.replace("]", r#", {"type": "x.WeightedLayerPooling"}]"#),
            "WeightedLayerPooling",
        ),
    ] {
        let folder = self::folder(test, "", PLAIN);
        write(&folder, "modules.json", modules.as_bytes());
        let error = open_folder(&folder).err().unwrap();
        says(&error, Status::Unsupported, &["modules.json", word]);
    }
    let folder = self::folder("include_prompt", "", PLAIN);
    let pooling = POOLING.replacen('{', r#"{"include_prompt": false, "#, 1);
    write(&folder, "1_Pooling/config.json", pooling.as_bytes());
    says(
        &open_folder(&folder).err().unwrap(),
        Status::Unsupported,
        &["1_Pooling", "include_prompt"],
    );
}

#[test]
fn several_files_with_an_index_give_the_same_bits_as_one() {
    let tokens = [7, 3, 88, 2];
    let one = open_folder(&folder("one_file", "", PLAIN)).unwrap();
    let expected = embed(&mut embedder(&one), &[&tokens]);
    let folder = folder("shards", "", PLAIN);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    let (mut parts, mut map) = ([Tensors::new(), Tensors::new()], serde_json::Map::new());
    for (index, (name, tensor)) in bert("").into_iter().enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", index % 2 + 1);
        map.insert(name.clone(), file.into());
        parts[index % 2].insert(name, tensor);
    }
    write(
        &folder,
        "model-00001-of-00002.safetensors",
        &safetensors(&parts[0]),
    );
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    write(
        &folder,
        "model.safetensors.index.json",
        index.to_string().as_bytes(),
    );
    let error = open_folder(&folder).err().unwrap();
    says(&error, Status::NotFound, &["model-00002-of-00002.safetensors"]);
    write(
        &folder,
        "model-00002-of-00002.safetensors",
        &safetensors(&parts[1]),
    );
    let model = open_folder(&folder).unwrap();
    assert_eq!(embed(&mut embedder(&model), &[&tokens]), expected);
}

#[test]
fn prompts_have_the_names_of_the_folder() {
    let prompts = r#"{"prompts": {"query": "query: ", "passage": "passage: ", "document": ""}, "default_prompt_name": null}"#;
    let folder = folder("prompts", "", PLAIN);
    assert!(
        open_folder(&folder)
            .unwrap()
            .embedding()
            .unwrap()
            .prompts
            .is_empty()
    );
    write(&folder, "config_sentence_transformers.json", prompts.as_bytes());
    let model = open_folder(&folder).unwrap();
    let info = model.embedding().unwrap();
    assert_eq!(info.prompt("query"), Ok("query: "));
    assert_eq!(info.prompt("document"), Ok(""));
    says(
        &info.prompt("riddle").unwrap_err(),
        Status::NotFound,
        &["riddle", "query", "passage"],
    );
}

#[test]
fn every_pooling_of_a_folder_is_that_of_the_option() {
    let tokens = [3, 1, 4, 15];
    for (mode, pooling) in [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_lasttoken", Pooling::Last),
    ] {
        let folder = folder(mode, "", PLAIN);
        write(
            &folder,
            "1_Pooling/config.json",
            format!("{{\"{mode}\": true}}").as_bytes(),
        );
        let model = open_folder(&folder).unwrap();
        assert_eq!(model.embedding().unwrap().pooling, pooling);
        let asked = EmbedOptions {
            pooling: Some(pooling),
            ..EmbedOptions::default()
        };
        let mut embedder = embedder(&model);
        assert_eq!(
            embed(&mut embedder, &[&tokens]),
            try_embed(&mut embedder, &[&tokens], &asked).unwrap()
        );
    }
}

#[test]
fn float_weights_of_a_folder_may_be_converted() {
    let tokens = [3, 1, 4, 15, 9, 26, 5];
    let folder = folder("converted", "", PLAIN);
    let whole = embed(&mut embedder(&open_folder(&folder).unwrap()), &[&tokens]).remove(0);
    for (weights, least) in [(DataType::BF16, 0.9999), (DataType::Q8_0, 0.999)] {
        let options = ModelOptions {
            weights: Some(weights),
            ..ModelOptions::default()
        };
        let model = Model::open(&runtime(1, None), &folder, options).unwrap();
        let row = embed(&mut embedder(&model), &[&tokens]).remove(0);
        let expected: Vec<f64> = whole.iter().map(|&value| f64::from(value)).collect();
        let cosine = embed_common::cosine(&row, &expected);
        assert!(cosine > least && row != whole, "{weights:?}: {cosine}");
    }
}
