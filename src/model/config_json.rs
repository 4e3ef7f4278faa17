//! The configuration of a Hugging Face folder (`config.json`), as the keys of GGUF.

use super::bert::ACTIVATION_KEY;
use crate::base::error::{Error, Result};
use crate::format::metadata::{Array, Metadata, Value};
use serde_json::Value as Json;

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A BERT.
    Bert,
    /// A decoder of the llama family.
    Decoder {
        /// Gemma 3.
        is_gemma: bool,
        /// The embedding serves as the output head.
        is_tied: bool,
    },
}

/// Reads the keys.
pub fn read(config: &Json) -> Result<(Kind, Metadata)> {
    let whole = Fields(config);
    match whole.text("model_type")?.unwrap_or("") {
        "bert" => Ok((Kind::Bert, read_bert(&whole)?)),
        architecture @ ("llama" | "mistral" | "qwen2" | "qwen3") => read_decoder(&whole, architecture),
        "gemma3_text" => read_decoder(&whole, "gemma3"),
        // With images: the numbers of the language model stand apart.
        "gemma3" => match whole.get("text_config") {
            Some(text) => read_decoder(&Fields(text), "gemma3"),
            None => Err(Error::format("text_config is missing")),
        },
        other => Err(Error::unsupported(format!(
            "model_type is \"{other}\"; of the models in folders of safetensors, bert, llama, mistral, qwen2, qwen3, gemma3 and gemma3_text are supported"
        ))),
    }
}

/// The fields of a JSON object.
struct Fields<'j>(&'j Json);

impl<'j> Fields<'j> {
    /// A field that is there and not null.
    fn get(&self, name: &str) -> Option<&'j Json> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(&self, name: &str, kind: &str, read: impl Fn(&'j Json) -> Option<T>) -> Result<Option<T>> {
        self.get(name)
            .map(|value| {
                read(value).ok_or_else(|| {
                    let found: String = value.to_string().chars().take(40).collect();
                    Error::format(format!("{name}: found {found}, expected {kind}"))
                })
            })
            .transpose()
    }

    fn text(&self, name: &str) -> Result<Option<&'j str>> {
        self.typed(name, "a string", Json::as_str)
    }

    fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Json::as_bool)
    }

    fn f32(&self, name: &str) -> Result<Option<f32>> {
        let number = self.typed(name, "a number", Json::as_f64)?;
        Ok(number.map(|number| number as f32))
    }

    /// A whole number above 0.
    fn u32(&self, name: &str) -> Result<Option<u32>> {
        self.typed(name, "a number above 0", |value| {
            let number = u32::try_from(value.as_u64()?).ok()?;
            (number > 0).then_some(number)
        })
    }

    fn required_u32(&self, name: &str) -> Result<u32> {
        let missing = || Error::format(format!("{name}: found nothing, expected a number above 0"));
        self.u32(name)?.ok_or_else(missing)
    }
}

/// Keys of one architecture.
struct Keys<'a> {
    architecture: &'a str,
    metadata: Metadata,
}

impl<'a> Keys<'a> {
    fn new(architecture: &'a str, fields: &Fields<'_>) -> Result<Keys<'a>> {
        let mut keys = Keys {
            architecture,
            metadata: Metadata::default(),
        };
        let text = |text: &str| Value::String(text.to_owned());
        let name = fields.text("_name_or_path")?.unwrap_or("");
        keys.metadata
            .insert("general.architecture".to_owned(), text(architecture));
        keys.metadata.insert("general.name".to_owned(), text(name));
        Ok(keys)
    }

    fn insert(&mut self, name: &str, value: Value) {
        let key = format!("{}.{name}", self.architecture);
        self.metadata.insert(key, value);
    }

    fn insert_f32(&mut self, name: &str, value: Option<f32>) {
        if let Some(value) = value {
            self.insert(name, Value::F32(value));
        }
    }

    fn insert_u32(&mut self, name: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.insert(name, Value::U32(value));
        }
    }
}

fn read_bert(fields: &Fields<'_>) -> Result<Metadata> {
    if fields
        .text("position_embedding_type")?
        .is_some_and(|kind| kind != "absolute")
    {
        return Err(Error::unsupported(
            "position_embedding_type is not \"absolute\", the only one that is supported",
        ));
    }
    let activation = match fields.text("hidden_act")? {
        None | Some("gelu") => "gelu",
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => "gelu_tanh",
        Some(other) => {
            return Err(Error::unsupported(format!(
                "hidden_act is \"{other}\"; gelu, gelu_new, gelu_fast and gelu_pytorch_tanh are supported"
            )));
        }
    };
    let mut keys = Keys::new("bert", fields)?;
    keys.metadata
        .insert(ACTIVATION_KEY.to_owned(), Value::String(activation.to_owned()));
    insert_sizes(&mut keys, fields)?;
    let epsilon = fields.f32("layer_norm_eps")?.unwrap_or(1e-12);
    keys.insert("attention.layer_norm_epsilon", Value::F32(epsilon));
    Ok(keys.metadata)
}

/// The numbers that all kinds must say.
fn insert_sizes(keys: &mut Keys<'_>, fields: &Fields<'_>) -> Result<()> {
    for (key, theirs) in [
        ("block_count", "num_hidden_layers"),
        ("embedding_length", "hidden_size"),
        ("attention.head_count", "num_attention_heads"),
        ("feed_forward_length", "intermediate_size"),
        ("context_length", "max_position_embeddings"),
    ] {
        keys.insert(key, Value::U32(fields.required_u32(theirs)?));
    }
    Ok(())
}

fn read_decoder(fields: &Fields<'_>, architecture: &str) -> Result<(Kind, Metadata)> {
    let is_gemma = architecture == "gemma3";
    let (field, expected) = match is_gemma {
        true => ("hidden_activation", "gelu_pytorch_tanh"),
        false => ("hidden_act", "silu"),
    };
    if let Some(other) = fields.text(field)?.filter(|found| *found != expected) {
        return Err(Error::unsupported(format!(
            "{field} is \"{other}\"; {architecture} is supported with {expected}"
        )));
    }
    let mut keys = Keys::new(architecture, fields)?;
    insert_sizes(&mut keys, fields)?;
    keys.insert_u32("attention.head_count_kv", fields.u32("num_key_value_heads")?);
    let head_dim = fields.u32("head_dim")?;
    keys.insert_u32("attention.key_length", head_dim);
    let epsilon = fields.f32("rms_norm_eps")?.unwrap_or(1e-6);
    keys.insert("attention.layer_norm_rms_epsilon", Value::F32(epsilon));
    if let Some(scalar) = fields.f32("query_pre_attn_scalar")? {
        keys.insert("attention.scale", Value::F32(1.0 / scalar.sqrt()));
    }
    keys.insert_f32("attn_logit_softcapping", fields.f32("attn_logit_softcapping")?);
    keys.insert_f32("final_logit_softcapping", fields.f32("final_logit_softcapping")?);
    insert_window(&mut keys, fields)?;
    insert_rope(&mut keys, fields)?;
    let kind = Kind::Decoder {
        is_gemma,
        // What `transformers` assumes where the file does not say it.
        is_tied: fields.bool("tie_word_embeddings")?.unwrap_or(is_gemma),
    };
    Ok((kind, keys.metadata))
}

/// Sliding windows. Qwen's are switched on by a field of their own.
fn insert_window(keys: &mut Keys<'_>, fields: &Fields<'_>) -> Result<()> {
    let Some(window) = fields.u32("sliding_window")? else {
        return Ok(());
    };
    if keys.architecture.starts_with("qwen") && !fields.bool("use_sliding_window")?.unwrap_or(false) {
        return Ok(());
    }
    keys.insert("attention.sliding_window", Value::U32(window));
    const PATTERN: &str = "attention.sliding_window_pattern";
    if let Some(types) = fields.get("layer_types").and_then(Json::as_array) {
        let sliding = types
            .iter()
            .map(|kind| kind.as_str() == Some("sliding_attention"));
        keys.insert(PATTERN, Value::Array(Array::Bool(sliding.collect())));
    } else if keys.architecture.starts_with("qwen") {
        // The layers below the field's see everything.
        let (layers, first) = (
            fields.required_u32("num_hidden_layers")?,
            fields.get("max_window_layers"),
        );
        let first = first.and_then(Json::as_u64).unwrap_or(28);
        let sliding = (0..u64::from(layers.min(1 << 16))).map(|layer| layer >= first);
        keys.insert(PATTERN, Value::Array(Array::Bool(sliding.collect())));
    } else {
        keys.insert_u32(PATTERN, fields.u32("sliding_window_pattern")?);
    }
    Ok(())
}

/// Bases and scaling of rotary embedding, in the fields of `transformers` 4 and 5.
fn insert_rope(keys: &mut Keys<'_>, fields: &Fields<'_>) -> Result<()> {
    let parameters = fields.get("rope_parameters");
    let of_layers = |kind: &str| parameters.and_then(|all| all.get(kind));
    let global = of_layers("full_attention").or(parameters);
    let base = match global {
        Some(global) => Fields(global).f32("rope_theta")?,
        None => fields.f32("rope_theta")?,
    };
    let is_gemma = keys.architecture == "gemma3";
    // What `transformers` assumes where the file does not say it.
    keys.insert_f32("rope.freq_base", base.or(is_gemma.then_some(1e6)));
    if is_gemma {
        let local = match of_layers("sliding_attention") {
            Some(local) => Fields(local).f32("rope_theta")?,
            None => fields.f32("rope_local_base_freq")?,
        };
        keys.insert_f32("rope.freq_base_swa", local);
    }
    let partial = fields.f32("partial_rotary_factor")?.unwrap_or(1.0);
    if partial != 1.0 {
        return Err(Error::unsupported(format!(
            "partial_rotary_factor is {partial}; only 1 is supported"
        )));
    }
    match fields.get("rope_scaling").or(global) {
        Some(scaling) => insert_scaling(keys, &Fields(scaling), fields),
        None => Ok(()),
    }
}

fn insert_scaling(keys: &mut Keys<'_>, scaling: &Fields<'_>, fields: &Fields<'_>) -> Result<()> {
    let kind = scaling.text("rope_type")?.or(scaling.text("type")?);
    let kind = kind.filter(|kind| *kind != "default");
    let Some(kind) = kind else {
        return Ok(());
    };
    // Other names go on as they are, and are refused with the file's own words.
    keys.insert("rope.scaling.type", Value::String(kind.to_owned()));
    for (key, theirs) in [
        ("rope.scaling.factor", "factor"),
        ("rope.scaling.low_freq_factor", "low_freq_factor"),
        ("rope.scaling.high_freq_factor", "high_freq_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ] {
        keys.insert_f32(key, scaling.f32(theirs)?);
    }
    if let Some(magnitude) = scaling.f32("attention_factor")? {
        // Said in full, instead of by the factor.
        keys.insert("rope.scaling.attn_factor", Value::F32(magnitude));
        keys.insert("rope.scaling.yarn_log_multiplier", Value::F32(f32::MIN_POSITIVE));
    }
    let original = scaling.u32("original_max_position_embeddings")?;
    let original = original.or(fields.u32("max_position_embeddings")?);
    keys.insert_u32("rope.scaling.original_context_length", original);
    Ok(())
}
