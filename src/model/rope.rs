//! Rotary position embedding (Su et al. 2021) and how models stretch it to longer contexts.

use super::config::positive;
use crate::base::error::{Error, Result};
use crate::format::metadata::{Array, Metadata};
use std::f64::consts::PI;

/// Rotary position embedding: angle(position, i) = position / scale * frequency(i), where frequency(i) =
/// base^(-2 i / dims) unless the scaling says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Values of a head that are rotated.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// Positions are divided by this (linear scaling; 1 for none).
    pub scale: f32,
    /// What else stretches the context.
    pub scaling: Scaling,
}

/// Scaling that depends on the frequency.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Divides each frequency by a factor of its own; one per pair.
    Factors(Vec<f32>),
    /// YaRN (Peng et al. 2023): high frequencies stay, low ones are divided by `factor`, those between are blended.
    Yarn {
        /// How many times longer the context becomes.
        factor: f32,
        /// Positions that the model was first trained for.
        original: u32,
        /// Rotations over the first context above which a frequency stays.
        beta_fast: f32,
        /// Rotations below which it is divided.
        beta_slow: f32,
        /// Multiplies cosine and sine.
        magnitude: f64,
    },
}

impl Rope {
    /// Frequencies before [`Rope::scale`], one per pair, and the factor of cosine and sine.
    ///
    /// In f64 by a library whose results do not depend on the system.
    pub fn frequencies(&self) -> (Vec<f64>, f64) {
        let exact = |i: usize| libm::pow(f64::from(self.base), -2.0 * i as f64 / self.dims as f64);
        let pairs = 0..self.dims / 2;
        match &self.scaling {
            Scaling::None => (pairs.map(exact).collect(), 1.0),
            Scaling::Factors(factors) => {
                let divided = pairs
                    .zip(factors)
                    .map(|(i, &factor)| exact(i) / f64::from(factor));
                (divided.collect(), 1.0)
            }
            &Scaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                magnitude,
            } => {
                let (low, high) = (
                    self.pair_of(beta_fast, original),
                    self.pair_of(beta_slow, original),
                );
                let low = libm::floor(low).max(0.0);
                let high = libm::ceil(high).min(self.dims as f64 - 1.0);
                let width = (high - low).max(0.001);
                let blend = |i: usize| {
                    let divided = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    exact(i) * (divided / f64::from(factor) + 1.0 - divided)
                };
                (pairs.map(blend).collect(), magnitude)
            }
        }
    }

    /// The pair, as a fraction, that turns `rotations` times over `positions` positions.
    fn pair_of(&self, rotations: f32, positions: u32) -> f64 {
        let turns = f64::from(positions) / (f64::from(rotations) * 2.0 * PI);
        self.dims as f64 * libm::log(turns) / (2.0 * libm::log(f64::from(self.base)))
    }

    /// An error unless frequencies are not scaled one by one, for architectures that do not know it.
    pub fn plain(self) -> Result<Rope> {
        if self.scaling == Scaling::None {
            return Ok(self);
        }
        Err(Error::unsupported(
            "rope scaling: only \"none\" and \"linear\" are supported for encoders",
        ))
    }
}

/// Reads the keys of GGUF. The type `llama3` is not GGUF's, which has the tensor `rope_freqs` instead, but that of
/// `config.json`.
pub(super) fn read_rope(metadata: &Metadata, architecture: &str, head_dim: usize) -> Result<Rope> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let dims = metadata
        .u32(&key("dimension_count"))?
        .map_or(head_dim, |dims| dims as usize);
    if dims == 0 || dims % 2 != 0 || dims > head_dim {
        return Err(Error::format(format!(
            "metadata key {}: found {dims}, expected an even number up to the head size {head_dim}",
            key("dimension_count")
        )));
    }
    let mut rope = Rope {
        dims,
        base: positive(&key("freq_base"), metadata, Some(10_000.0))?,
        scale: 1.0,
        scaling: Scaling::None,
    };
    let factor = || positive(&key("scaling.factor"), metadata, None);
    match metadata.str(&key("scaling.type"))? {
        None | Some("none") => {}
        Some("linear") => rope.scale = factor()?,
        Some("yarn") => rope.scaling = read_yarn(metadata, &key, factor()?)?,
        Some("llama3") => rope.scaling = read_llama3(metadata, &key, &rope)?,
        Some(other) => {
            return Err(Error::unsupported(format!(
                "metadata key {}: rope scaling \"{other}\" is not supported; none, linear, yarn and llama3 are",
                key("scaling.type")
            )));
        }
    }
    Ok(rope)
}

fn read_yarn(metadata: &Metadata, key: &impl Fn(&str) -> String, factor: f32) -> Result<Scaling> {
    let name = key("scaling.original_context_length");
    let original = metadata.required_u32(&name)?;
    if original == 0 {
        return Err(Error::format(format!(
            "metadata key {name}: found 0, expected 1 or more"
        )));
    }
    let number =
        |name: &str, default: f32| positive(&key(&format!("scaling.{name}")), metadata, Some(default));
    // Section 3.4 of the paper: the temperature of attention grows with the factor.
    let multiplier = number("yarn_log_multiplier", 0.1)?;
    let temperature = 1.0 + f64::from(multiplier) * libm::log(f64::from(factor).max(1.0));
    Ok(Scaling::Yarn {
        factor,
        original,
        beta_fast: number("yarn_beta_fast", 32.0)?,
        beta_slow: number("yarn_beta_slow", 1.0)?,
        magnitude: temperature * f64::from(number("attn_factor", 1.0)?),
    })
}

/// Llama 3.1's rule: wavelengths longer than the first context / low_freq_factor are stretched by the factor, those
/// shorter than it / high_freq_factor stay, and those between are blended.
fn read_llama3(metadata: &Metadata, key: &impl Fn(&str) -> String, rope: &Rope) -> Result<Scaling> {
    let number = |name: &str| positive(&key(&format!("scaling.{name}")), metadata, None).map(f64::from);
    let (factor, low, high) = (
        number("factor")?,
        number("low_freq_factor")?,
        number("high_freq_factor")?,
    );
    let original = f64::from(metadata.required_u32(&key("scaling.original_context_length"))?);
    if high <= low {
        return Err(Error::format(format!(
            "rope scaling: high_freq_factor is {high}, expected more than low_freq_factor, {low}"
        )));
    }
    let (frequencies, _) = rope.frequencies();
    let factors = frequencies.iter().map(|frequency| {
        let wavelengths = original * frequency / (2.0 * PI);
        let kept = ((wavelengths - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - kept) / factor + kept)) as f32
    });
    Ok(Scaling::Factors(factors.collect()))
}

/// Which layers see a window only: all but every `default`th, unless the file says otherwise. `None` is no layer.
pub(super) fn sliding_layers(
    metadata: &Metadata,
    architecture: &str,
    layers: usize,
    default: Option<usize>,
) -> Result<Vec<bool>> {
    let key = format!("{architecture}.attention.sliding_window_pattern");
    match metadata.array(&key) {
        Ok(Some(Array::Bool(pattern))) if pattern.len() == layers => Ok(pattern.clone()),
        Ok(Some(pattern)) => Err(Error::format(format!(
            "metadata key {key}: found {} values of type {}, expected {layers} booleans",
            pattern.len(),
            pattern.type_name()
        ))),
        _ => {
            let period = metadata
                .u32(&key)?
                .map_or(default, |period| Some(period as usize));
            match period {
                None => Ok(vec![false; layers]),
                Some(0) => Err(Error::format(format!(
                    "metadata key {key}: found 0, expected 1 or more"
                ))),
                Some(period) => Ok((0..layers).map(|layer| layer % period < period - 1).collect()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::metadata::Value;

    fn rope_of(entries: &[(&str, Value)]) -> Result<Rope> {
        let mut metadata = Metadata::default();
        for (key, value) in entries {
            metadata.insert(format!("llama.rope.{key}"), value.clone());
        }
        read_rope(&metadata, "llama", 64)
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// Numbers of `transformers` 4.57 (`ROPE_INIT_FUNCTIONS["llama3"]` and `["yarn"]`), which are not ours.
    #[test]
    fn llama3_and_yarn_are_those_of_the_reference() {
        let llama3 = rope_of(&[
            ("freq_base", Value::F32(500_000.0)),
            ("scaling.type", text("llama3")),
            ("scaling.factor", Value::F32(32.0)),
            ("scaling.low_freq_factor", Value::F32(1.0)),
            ("scaling.high_freq_factor", Value::F32(4.0)),
            ("scaling.original_context_length", Value::U32(8192)),
        ])
        .unwrap();
        let (frequencies, magnitude) = llama3.frequencies();
        assert_eq!(magnitude, 1.0);
        let exact = |i: f64| 500_000f64.powf(-i / 32.0);
        // The first frequencies stay, the last are divided; 15 lies between (wavelength 2948).
        assert!((frequencies[0] - 1.0).abs() < 1e-12);
        assert!((frequencies[31] / exact(31.0) * 32.0 - 1.0).abs() < 1e-6);
        let smooth = (8192.0 * exact(15.0) / (2.0 * PI) - 1.0) / 3.0;
        let expected = (1.0 - smooth) * exact(15.0) / 32.0 + smooth * exact(15.0);
        assert!((frequencies[15] / expected - 1.0).abs() < 1e-6);

        let yarn = rope_of(&[
            ("freq_base", Value::F32(1_000_000.0)),
            ("scaling.type", text("yarn")),
            ("scaling.factor", Value::F32(4.0)),
            ("scaling.original_context_length", Value::U32(32_768)),
        ])
        .unwrap();
        let (frequencies, magnitude) = yarn.frequencies();
        // 1 + 0.1 ln 4, where 0.1 is an f32, as in a file.
        assert!((magnitude - 1.138_629_436).abs() < 1e-8);
        let exact = |i: f64| 1_000_000f64.powf(-i / 32.0);
        // low = floor(64 ln(32768 / (32 * 2 pi)) / (2 ln 1e6)) = 11, high = ceil(64 ln(32768 / (2 pi)) / (2 ln 1e6)) = 20.
        for (i, divided) in [(0, 0.0), (11, 0.0), (15, 4.0 / 9.0), (20, 1.0), (31, 1.0)] {
            let expected = exact(i as f64) * (divided / 4.0 + 1.0 - divided);
            assert!((frequencies[i] / expected - 1.0).abs() < 1e-12, "{i}");
        }
    }

    #[test]
    fn wrong_scalings_are_refused() {
        for entries in [
            vec![("scaling.type", text("longrope"))],
            vec![("scaling.type", text("linear"))],
            vec![
                ("scaling.type", text("yarn")),
                ("scaling.factor", Value::F32(4.0)),
            ],
            vec![
                ("scaling.type", text("yarn")),
                ("scaling.factor", Value::F32(f32::NAN)),
                ("scaling.original_context_length", Value::U32(1)),
            ],
            vec![("dimension_count", Value::U32(66))],
        ] {
            assert!(rope_of(&entries).is_err(), "{entries:?}");
        }
    }
}
