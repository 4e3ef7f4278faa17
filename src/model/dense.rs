//! Dense layers behind the pooling: y = f(W x + b), of an EmbeddingGemma or a sentence-transformers folder.

use super::names::Names;
use super::weights::{Loader, RowOrder};
use crate::base::error::{Error, Result, Within};
use crate::format::container::Container;
use crate::format::metadata::Metadata;
use crate::ops::linear::Linear;

/// What a dense layer ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseActivation {
    /// Nothing.
    Identity,
    /// The hyperbolic tangent (LaBSE and its kin).
    Tanh,
}

impl DenseActivation {
    /// Applies it to each value, with the same bits everywhere.
    pub fn apply(self, values: &mut [f32]) {
        if self == DenseActivation::Tanh {
            for value in values {
                // By a library whose results do not depend on the system.
                *value = libm::tanh(f64::from(*value)) as f32;
            }
        }
    }
}

/// A dense layer.
pub struct Dense {
    /// Weights and biases.
    pub linear: Linear,
    /// What follows the product.
    pub activation: DenseActivation,
}

/// A module of the type Dense of a sentence-transformers folder, as its configuration describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseModule {
    /// The module's folder, such as `2_Dense`.
    pub folder: String,
    /// Values of an input.
    pub inputs: u32,
    /// Values of an output.
    pub outputs: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// What follows the product.
    pub activation: DenseActivation,
}

impl DenseModule {
    /// Reads `config.json` of the module in `folder`.
    pub fn read(container: &Container<'_>, folder: &str) -> Result<DenseModule> {
        let file = format!("{folder}/config.json");
        let config = container.required_sidecar_json(&file)?;
        DenseModule::parse(folder, &config).within(|| file)
    }

    fn parse(folder: &str, config: &serde_json::Value) -> Result<DenseModule> {
        let size = |name: &str| {
            let number = config.get(name).and_then(serde_json::Value::as_u64);
            let fitting = number.and_then(|number| u32::try_from(number).ok());
            fitting
                .filter(|number| (1..=1 << 20).contains(number))
                .ok_or_else(|| {
                    let found = config.get(name).map_or("nothing".to_owned(), ToString::to_string);
                    Error::format(format!(
                        "{name}: found {found}, expected a number from 1 to {}",
                        1 << 20
                    ))
                })
        };
        let activation = config.get("activation_function").and_then(|name| name.as_str());
        // The field holds the path of a Python class.
        let activation = match activation.and_then(|name| name.rsplit('.').next()) {
            Some("Identity") => DenseActivation::Identity,
            // The default of sentence-transformers.
            None | Some("Tanh") => DenseActivation::Tanh,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "activation_function is {other}; Identity and Tanh are supported"
                )));
            }
        };
        Ok(DenseModule {
            folder: folder.to_owned(),
            inputs: size("in_features")?,
            outputs: size("out_features")?,
            bias: config
                .get("bias")
                .and_then(serde_json::Value::as_bool)
                .unwrap_or(true),
            activation,
        })
    }

    /// Loads the module's weights, whose memory counts as that of `beside`.
    fn load(&self, container: &Container<'_>, beside: &mut Loader<'_, '_, '_>) -> Result<Dense> {
        let file = format!("{}/model.safetensors", self.folder);
        let weights = container.open_beside(&file)?;
        let load = || {
            let mut loader = beside.of_another(&weights, &Names::Gguf);
            let (rows, columns) = (self.outputs as usize, self.inputs as usize);
            let matrix = loader.matrix("linear.weight", rows, columns, RowOrder::Stored)?;
            let bias = match self.bias {
                true => Some(loader.vector("linear.bias", rows)?),
                false => None,
            };
            let packed = loader.packed();
            Ok((Linear::new(vec![matrix], bias)?, packed))
        };
        let loaded: Result<(Linear, u64)> = load();
        let (linear, packed) = loaded.within(|| file)?;
        beside.set_packed(packed);
        Ok(Dense {
            linear,
            activation: self.activation,
        })
    }
}

/// The dense layers behind the pooling of an EmbeddingGemma in GGUF; none where the file lacks both.
pub fn load_dense(
    metadata: &Metadata,
    architecture: &str,
    width: usize,
    loader: &mut Loader<'_, '_, '_>,
) -> Result<Vec<Dense>> {
    let mut layers = Vec::new();
    let mut columns = width;
    for name in ["dense_2", "dense_3"] {
        let tensor = format!("{name}.weight");
        let Some(rows) = loader.rows(&tensor) else {
            continue;
        };
        let key = format!("{architecture}.{name}_feat_out");
        if let Some(expected) = metadata.u32(&key)?
            && expected as usize != rows
        {
            return Err(Error::format(format!(
                "tensor {tensor} has {rows} rows, but metadata key {key} is {expected}"
            )));
        }
        let matrix = loader.matrix(&tensor, rows, columns, RowOrder::Stored)?;
        layers.push(Dense {
            linear: Linear::new(vec![matrix], None)?,
            activation: DenseActivation::Identity,
        });
        columns = rows;
    }
    if layers.len() == 1 {
        return Err(Error::format(
            "the file has one of the tensors dense_2.weight and dense_3.weight; expected both or none",
        ));
    }
    Ok(layers)
}

/// The dense layers that `modules.json` lists.
pub fn load_modules(
    container: &Container<'_>,
    modules: &[DenseModule],
    loader: &mut Loader<'_, '_, '_>,
) -> Result<Vec<Dense>> {
    modules
        .iter()
        .map(|module| module.load(container, loader))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_with_their_defaults() {
        let config = serde_json::json!({"in_features": 384, "out_features": 128, "bias": false,
            "activation_function": "torch.nn.modules.linear.Identity"});
        let module = DenseModule::parse("2_Dense", &config).unwrap();
        assert_eq!((module.inputs, module.outputs, module.bias), (384, 128, false));
        assert_eq!(module.activation, DenseActivation::Identity);
        let config = serde_json::json!({"in_features": 384, "out_features": 128});
        let module = DenseModule::parse("2_Dense", &config).unwrap();
        assert_eq!((module.bias, module.activation), (true, DenseActivation::Tanh));
        for (name, value, word) in [
            ("in_features", serde_json::json!(0), "in_features"),
            ("out_features", serde_json::json!("x"), "out_features"),
            ("activation_function", serde_json::json!("torch.nn.GELU"), "GELU"),
        ] {
            let mut wrong = config.clone();
            wrong[name] = value;
            let error = DenseModule::parse("2_Dense", &wrong).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
    }
}
