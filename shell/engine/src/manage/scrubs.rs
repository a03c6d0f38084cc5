//! Scrubs: begun, stopped, looked after.

use std::sync::Arc;

use braid_api::v1;
use braid_pool::Command;
use tonic::Status;

use super::host::Host;
use super::manager::{Manager, Pool, locked};
use super::names;

/// What a scrub reads in a second unless it is told otherwise: a tenth of what a slow disk can.
const RATE_BYTES_PER_S: u64 = 64 << 20;

impl<H: Host> Manager<H> {
    /// `StartScrub`.
    pub(crate) async fn start_scrub(
        &self,
        request: v1::StartScrubRequest,
    ) -> Result<v1::Scrub, Status> {
        let rate = match request.rate_bytes_per_s {
            0 => RATE_BYTES_PER_S,
            rate => rate,
        };
        self.scrub(&request.pool, "start a scrub", rate).await
    }

    /// `StopScrub`.
    pub(crate) async fn stop_scrub(&self, pool: &str) -> Result<v1::Scrub, Status> {
        self.scrub(pool, "stop the scrub", 0).await
    }

    /// `GetScrub`.
    pub(crate) async fn get_scrub(&self, pool: &str) -> Result<v1::Scrub, Status> {
        let pool = self.pool(pool)?;
        self.scrub_status(&pool).await
    }

    async fn scrub(&self, pool: &str, what: &str, rate: u64) -> Result<v1::Scrub, Status> {
        let held = self.hold(self.pool(pool)?).await?;
        self.command(&held.pool, what, Command::Scrub { rate }).await?;
        self.scrub_status(&held.pool).await
    }

    async fn scrub_status(&self, pool: &Arc<Pool>) -> Result<v1::Scrub, Status> {
        let scrub = self.picture(pool).await?.info.scrub;
        let (finished_unix_s, finished_blocks, finished_errors) =
            locked(&pool.heard).scrubbed.unwrap_or_default();
        let (checked_bytes, total_bytes) = scrub.unwrap_or_default();
        Ok(v1::Scrub {
            pool: names::text(pool.uuid),
            running: scrub.is_some(),
            checked_bytes,
            total_bytes,
            finished_unix_s,
            finished_blocks,
            finished_errors,
        })
    }
}
