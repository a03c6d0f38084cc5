//! A volume grows.

use braid_api::control as wire;
use braid_plan::Step;
use tonic::Status;

use super::changes::Waited;
use super::create::{check_size, rounded};
use super::refused;
use crate::registry::Control;
use crate::store::{Change, Volume};

impl Control {
    /// `Resize`.
    pub(crate) async fn resize(
        &self,
        request: wire::ResizeRequest,
    ) -> Result<wire::Volume, Status> {
        let volume = self.reference(&request.volume)?;
        check_size(request.size_bytes)?;
        let bytes = rounded(request.size_bytes).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Status::invalid_argument("size_bytes is missing, or too large: how large shall it be?")
        })?;
        let (spec, record) = self.changeable(&volume)?;
        if bytes < record.bytes {
            return Err(Status::invalid_argument(format!(
                "volume {} has {} bytes, and volumes only grow",
                spec.name, record.bytes
            )));
        }
        let meant = |step: &Step| matches!(step, Step::Resize { bytes: to, .. } if *to == bytes);
        self.ask_anew(&volume, meant);
        if spec.bytes != bytes {
            self.store
                .change(Change::Resize { volume, instead: None, bytes })
                .await
                .map_err(refused)?;
            self.store.note(volume, format!("a size of {bytes} bytes was asked for"));
        }
        let look = |volume: &Volume| {
            let now = volume.record.as_ref().map_or(0, |record| record.bytes);
            let other = volume.spec.bytes;
            match now {
                now if now >= bytes => Some(Ok(())),
                _ if other != bytes => Some(Err(Status::aborted(format!(
                    "another size is asked for now: {other} bytes"
                )))),
                _ => None,
            }
        };
        self.wait_until(&volume, meant, look).await.map_err(Waited::status)?;
        self.volume(&volume)
    }
}
