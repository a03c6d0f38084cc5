//! Between pages on disk and maps in memory.

use crate::layout::LayerFields;
use crate::map::LayerState;

/// A layer's fields in memory, unless they make no sense.
pub(crate) fn layer_state(_fields: &LayerFields) -> Option<LayerState> {
    unimplemented!()
}
/// A layer's fields as page and journal hold them.
pub(crate) fn layer_fields(_state: &LayerState) -> LayerFields {
    unimplemented!()
}
