//! One way of making a signature.

use crate::bench::Bench;
use crate::differences::Property;

/// How many variations every kind of key makes.
pub(crate) const CORE: usize = 5;

/// What is pushed, and what is to be said of it.
pub(crate) struct Variation<T> {
    /// In words.
    pub(crate) name: &'static str,
    /// Whether it signs the image.
    pub(crate) good: bool,
    /// In what cosign may differ.
    pub(crate) property: Option<Property>,
    /// Makes it.
    pub(crate) make: fn(&Bench<'_>) -> T,
}

/// A signature of the image.
pub(crate) const fn good<T>(name: &'static str, make: fn(&Bench<'_>) -> T) -> Variation<T> {
    Variation { name, good: true, property: None, make }
}

/// Something else.
pub(crate) const fn bad<T>(name: &'static str, make: fn(&Bench<'_>) -> T) -> Variation<T> {
    Variation { name, good: false, property: None, make }
}

impl<T> Variation<T> {
    /// With this property.
    pub(crate) const fn of(mut self, property: Property) -> Self {
        self.property = Some(property);
        self
    }
}
