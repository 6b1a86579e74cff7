//! Long loops of a statement give way: to others on their thread, and to the time limit, which ends a statement only where it waits.

/// Rows between two times that a loop gives way: about a millisecond's work.
const ROWS: usize = 256;

/// Counts the rows of a loop.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rows: usize,
}

impl Pace {
    /// Gives way after every so many rows.
    pub(super) async fn row(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS) {
            tokio::task::yield_now().await;
        }
    }
}
