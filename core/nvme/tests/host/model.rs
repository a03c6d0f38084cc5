//! An honest target of a few lines: it answers what a host asks while it connects, and moves data.

use std::collections::HashMap;

use braid_nvme::pdu::Digests;

use crate::wire::{self, LAST, Pdu, SUCCESS};

pub(crate) const CNTLID: u16 = 7;

/// What it says of itself, to be bent by tests.
pub(crate) struct Model {
    pub(crate) identity: Vec<u8>,
    pub(crate) cap: u64,
    /// CSTS before it is ready, so many times.
    pub(crate) not_ready: u32,
    pub(crate) csts: u32,
    pub(crate) granted: u16,
    pub(crate) cpda: u8,
    pub(crate) max_h2c_data: u32,
    /// Saves responses after data by the SUCCESS flag.
    pub(crate) success_flag: bool,
    /// Answers these opcodes (fabrics types from 100h on) with this status.
    pub(crate) refuse: HashMap<u16, u16>,
    /// Discovery log pages: one a generation.
    pub(crate) log: Vec<u8>,
    pub(crate) keep_alives: u32,
    pub(crate) shutdowns: u32,
    pub(crate) namespaces: Vec<u32>,
    /// One block of payload for every read.
    pub(crate) disk: Vec<u8>,
    pub(crate) commands: Vec<Pdu>,
    /// Requests for notice that wait.
    pub(crate) notice_cids: Vec<u16>,
    /// Writes whose data comes by R2T: what is here of it.
    transfers: HashMap<u16, (u16, Vec<u8>, u32)>,
    /// Bytes asked for at once.
    pub(crate) r2t_bytes: u32,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            identity: identity(),
            cap: 0x0000_0020_0200_007f,
            not_ready: 0,
            csts: 1,
            granted: 16,
            cpda: 0,
            max_h2c_data: 8192,
            success_flag: false,
            refuse: HashMap::new(),
            log: Vec::new(),
            keep_alives: 0,
            shutdowns: 0,
            namespaces: vec![1, 5],
            disk: (0..128 << 10).map(|n: u32| (n % 251) as u8).collect(),
            commands: Vec::new(),
            notice_cids: Vec::new(),
            transfers: HashMap::new(),
            r2t_bytes: u32::MAX,
        }
    }

    /// Its answer to a PDU.
    pub(crate) fn answer(&mut self, queue: u16, pdu: &Pdu, digests: Digests) -> Vec<u8> {
        match pdu.kind {
            0 => wire::ic_resp(digests, self.cpda, self.max_h2c_data),
            4 => self.command(queue, pdu, digests),
            6 => self.data(pdu, digests),
            _ => Vec::new(),
        }
    }

    fn command(&mut self, queue: u16, pdu: &Pdu, digests: Digests) -> Vec<u8> {
        self.commands.push(pdu.clone());
        let cid = pdu.cid();
        let fabrics = pdu.opcode() == 0x7f;
        let code = if fabrics { 0x100 | u16::from(pdu.header[12]) } else { pdu.opcode().into() };
        if let Some(&status) = self.refuse.get(&code) {
            return wire::response(digests, cid, status, 0);
        }
        let ok = |result| wire::response(digests, cid, 0, result);
        match (queue, code) {
            (_, 0x101) => self.connect(queue, pdu, digests),
            (_, 0x100) => {
                self.shutdowns += u32::from(pdu.cdw(12) & 3 << 14 != 0);
                self.csts |= if pdu.cdw(12) & 3 << 14 != 0 { 2 << 2 } else { 0 };
                ok(0)
            }
            (_, 0x104) => ok(self.property(pdu.cdw(11))),
            (0, 0x06) => {
                let page = self.identify(pdu.cdw(10) as u8, pdu.u32(12));
                self.send(cid, &page, digests)
            }
            (0, 0x02) => {
                let len = 4 * ((pdu.cdw(10) >> 16 | pdu.cdw(11) << 16) as usize + 1);
                let at = pdu.cdw(12) as usize;
                let page = self.log.get(at..at + len).map_or(vec![0; len], <[u8]>::to_vec);
                self.send(cid, &page, digests)
            }
            (0, 0x09) => ok(u64::from(self.granted - 1) * 0x1_0001),
            (0, 0x0c) => {
                self.notice_cids.push(cid);
                Vec::new()
            }
            (0, 0x18) => {
                self.keep_alives += 1;
                ok(0)
            }
            (_, 0x02) => {
                let len = pdu.u32(8 + 32) as usize;
                let page = self.disk[..len].to_vec();
                self.send(cid, &page, digests)
            }
            (_, 0x01 | 0x09) => self.take(pdu, digests),
            _ => ok(0),
        }
    }

    fn connect(&self, queue: u16, pdu: &Pdu, digests: Digests) -> Vec<u8> {
        assert_eq!(pdu.data.len(), 1024, "Connect data goes in the capsule");
        assert_eq!(pdu.cdw(10) >> 16, u32::from(queue), "QID");
        let cntlid = u16::from_le_bytes([pdu.data[16], pdu.data[17]]);
        assert_eq!(cntlid, if queue == 0 { 0xffff } else { CNTLID });
        wire::response(digests, pdu.cid(), 0, CNTLID.into())
    }

    fn property(&mut self, offset: u32) -> u64 {
        match offset {
            0x00 => self.cap,
            0x08 => 0x0001_0400,
            0x1c if self.not_ready > 0 => {
                self.not_ready -= 1;
                0
            }
            0x1c => self.csts.into(),
            _ => 0,
        }
    }

    fn identify(&self, cns: u8, nsid: u32) -> Vec<u8> {
        let mut page = vec![0; 4096];
        match cns {
            0x00 => namespace(&mut page),
            0x01 => page.clone_from(&self.identity),
            0x02 => {
                let ids = self.namespaces.iter().filter(|id| **id > nsid).take(1024);
                for (at, id) in ids.enumerate() {
                    page[4 * at..4 * at + 4].copy_from_slice(&id.to_le_bytes());
                }
            }
            _ => {
                page[..4].copy_from_slice(&[3, 16, 0, 0]);
                page[4..20].fill(nsid as u8);
            }
        }
        page
    }

    fn send(&self, cid: u16, page: &[u8], digests: Digests) -> Vec<u8> {
        let mut bytes = Vec::new();
        let pieces = page.chunks(32 << 10);
        let last = pieces.len() - 1;
        let success = if self.success_flag { SUCCESS } else { 0 };
        for (at, piece) in pieces.enumerate() {
            let flags = if at == last { LAST | success } else { 0 };
            bytes.extend(wire::data(digests, cid, (at << 15) as u32, flags, piece));
        }
        if !self.success_flag {
            bytes.extend(wire::response(digests, cid, 0, 0));
        }
        bytes
    }

    /// A write: its data is here, or is asked for.
    fn take(&mut self, pdu: &Pdu, digests: Digests) -> Vec<u8> {
        let len = pdu.u32(8 + 32);
        if pdu.header[8 + 39] == 0x01 {
            assert_eq!(pdu.data.len(), len as usize);
            self.disk[..pdu.data.len()].copy_from_slice(&pdu.data);
            return wire::response(digests, pdu.cid(), 0, 0);
        }
        assert_eq!(pdu.header[8 + 39], 0x5a);
        self.transfers.insert(pdu.cid(), (pdu.cid() ^ 0x55, Vec::new(), len));
        let length = len.min(self.r2t_bytes);
        wire::r2t(digests, pdu.cid(), pdu.cid() ^ 0x55, 0, length)
    }

    fn data(&mut self, pdu: &Pdu, digests: Digests) -> Vec<u8> {
        let cid = pdu.u16(8);
        let (ttag, here, len) = self.transfers.get_mut(&cid).expect("data for nothing");
        assert_eq!(pdu.u16(10), *ttag);
        assert_eq!(pdu.u32(12) as usize, here.len(), "DATAO");
        assert_eq!(pdu.u32(16) as usize, pdu.data.len(), "DATAL");
        assert!(pdu.data.len() <= self.max_h2c_data as usize, "MAXH2CDATA");
        assert_eq!(usize::from(pdu.pdo) % (4 * (usize::from(self.cpda) + 1)), 0, "CPDA");
        here.extend(&pdu.data);
        let (have, len) = (here.len() as u32, *len);
        let asked = have.div_ceil(self.r2t_bytes).saturating_mul(self.r2t_bytes).min(len);
        assert_eq!(pdu.flags & LAST != 0, have == asked, "LAST at {have} of {asked}");
        if have == len {
            let (_, here, _) = self.transfers.remove(&cid).unwrap();
            self.disk[..here.len()].copy_from_slice(&here);
            return wire::response(digests, cid, 0, 0);
        }
        if have < asked {
            return Vec::new();
        }
        let length = (len - have).min(self.r2t_bytes);
        wire::r2t(digests, cid, *ttag, have, length)
    }
}

fn identity() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[4..24].copy_from_slice(b"SERIAL              ");
    page[24..64].fill(b' ');
    page[24..30].copy_from_slice(b"a disk");
    page[64..72].copy_from_slice(b"1.0     ");
    page[77] = 5;
    page[78..80].copy_from_slice(&CNTLID.to_le_bytes());
    page[111] = 1;
    page[320] = 10;
    page[514] = 128;
    page[516] = 32;
    page[520] = 0b1100;
    page[525] = 1;
    page[536] = 1;
    page[538] = 0x10;
    // IOCCSZ for 8 KiB in the capsule, IORCSZ.
    page[1792..1796].copy_from_slice(&516_u32.to_le_bytes());
    page[1796] = 1;
    page
}

fn namespace(page: &mut [u8]) {
    page[..8].copy_from_slice(&1024_u64.to_le_bytes());
    page[8..16].copy_from_slice(&1024_u64.to_le_bytes());
    page[30] = 1;
    page[33] = 9;
    page[104..120].fill(0xee);
    page[128 + 2] = 12;
}
