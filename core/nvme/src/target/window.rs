//! A window on a page of data: the part of it that a host asked for.

/// The bytes of a page from `offset`, as many as `out` holds. Zero where nothing is put.
pub(crate) struct Window<'a> {
    offset: u64,
    out: &'a mut [u8],
}

impl<'a> Window<'a> {
    /// A window that begins `offset` bytes into the page.
    pub(crate) fn new(offset: u64, out: &'a mut [u8]) -> Self {
        out.fill(0);
        Self { offset, out }
    }

    /// Puts the part of `bytes`, which begin at `at` in the page, that the window shows.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        if !self.shows(at, bytes.len()) {
            return;
        }
        // Both differences fit: one of them is zero, the other less than a length in memory.
        let skip = self.offset.saturating_sub(at) as usize;
        let start = at.saturating_sub(self.offset) as usize;
        for (to, from) in self.out.iter_mut().skip(start).zip(bytes.iter().skip(skip)) {
            *to = *from;
        }
    }

    /// Whether the window shows all of the `len` bytes at `at`.
    pub(crate) fn shows_all(&self, at: u64, len: u64) -> bool {
        let end = self.offset.saturating_add(self.out.len() as u64);
        self.offset <= at && at.saturating_add(len) <= end
    }

    /// Whether the window shows any of the `len` bytes at `at`.
    pub(crate) fn shows(&self, at: u64, len: usize) -> bool {
        let end = self.offset.saturating_add(self.out.len() as u64);
        at < end && at.saturating_add(len as u64) > self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shows_the_same_bytes_wherever_it_begins() {
        let mut whole = [0; 16];
        let mut page = Window::new(0, &mut whole);
        page.put(2, &[1, 2, 3, 4]);
        page.put(9, &[5; 20]);
        for offset in 0..16 {
            for len in 0..=16 - offset {
                let mut part = [0xff; 16];
                let mut window = Window::new(offset as u64, &mut part[..len]);
                window.put(2, &[1, 2, 3, 4]);
                window.put(9, &[5; 20]);
                assert_eq!(part[..len], whole[offset..offset + len], "{offset} {len}");
            }
        }
    }

    #[test]
    fn a_window_at_the_end_of_time_shows_nothing() {
        let mut out = [0xff; 4];
        Window::new(u64::MAX, &mut out).put(0, &[1; 4]);
        assert_eq!(out, [0; 4]);
    }
}
