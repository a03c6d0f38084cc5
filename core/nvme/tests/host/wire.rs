//! PDUs as a target writes and reads them, byte by byte from the figures, apart from the codec
//! under test.

use braid_nvme::pdu::Digests;

/// A PDU of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pdu {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) pdo: u8,
    pub(crate) header: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.header[at..at + 2].try_into().unwrap())
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.header[at..at + 4].try_into().unwrap())
    }

    /// Opcode of a command capsule.
    pub(crate) fn opcode(&self) -> u8 {
        assert_eq!(self.kind, 4);
        self.header[8]
    }

    /// Command id of a command capsule.
    pub(crate) fn cid(&self) -> u16 {
        assert_eq!(self.kind, 4);
        self.u16(10)
    }

    /// CDW10 to CDW15 of a command capsule.
    pub(crate) fn cdw(&self, n: usize) -> u32 {
        assert_eq!(self.kind, 4);
        self.u32(8 + 40 + (n - 10) * 4)
    }
}

/// Takes the first whole PDU off what a host sent, and checks its digests.
pub(crate) fn take(wire: &mut Vec<u8>, digests: Digests) -> Option<Pdu> {
    let plen = u32::from_le_bytes(wire.get(4..8)?.try_into().unwrap()) as usize;
    if wire.len() < plen {
        return None;
    }
    let pdu: Vec<u8> = wire.drain(..plen).collect();
    let (kind, flags, hlen, pdo) = (pdu[0], pdu[1], usize::from(pdu[2]), usize::from(pdu[3]));
    let has_digests = !matches!(kind, 0..=3);
    let header = pdu[..hlen].to_vec();
    let mut bare = hlen;
    assert_eq!(flags & 1 != 0, has_digests && digests.header, "HDGSTF");
    if flags & 1 != 0 {
        assert_eq!(pdu[hlen..hlen + 4], crc32c::crc32c(&header).to_le_bytes(), "header digest");
        bare += 4;
    }
    let mut data = Vec::new();
    if kind == 2 {
        data = pdu[hlen..].to_vec();
    } else if plen > bare {
        assert!(pdo >= bare && pdo % 4 == 0, "PDO {pdo}");
        assert_eq!(flags & 2 != 0, digests.data, "DDGSTF");
        let end = plen - if digests.data { 4 } else { 0 };
        data = pdu[pdo..end].to_vec();
        if digests.data {
            assert_eq!(pdu[end..], crc32c::crc32c(&data).to_le_bytes(), "data digest");
        }
    } else {
        assert_eq!(flags & 2, 0, "a data digest without data");
    }
    Some(Pdu { kind, flags, pdo: pdo as u8, header, data })
}

fn finish(mut header: Vec<u8>, digests: Digests, data: Option<&[u8]>) -> Vec<u8> {
    let hlen = header.len();
    let mut plen = hlen;
    if digests.header {
        header[1] |= 1;
        plen += 4;
    }
    if let Some(data) = data {
        header[3] = plen as u8;
        plen += data.len();
        if digests.data {
            header[1] |= 2;
            plen += 4;
        }
    }
    header[2] = hlen as u8;
    header[4..8].copy_from_slice(&(plen as u32).to_le_bytes());
    let mut pdu = header.clone();
    if digests.header {
        pdu.extend(crc32c::crc32c(&header).to_le_bytes());
    }
    if let Some(data) = data {
        pdu.extend(data);
        if digests.data {
            pdu.extend(crc32c::crc32c(data).to_le_bytes());
        }
    }
    pdu
}

/// ICResp.
pub(crate) fn ic_resp(digests: Digests, cpda: u8, max_h2c_data: u32) -> Vec<u8> {
    let mut pdu = vec![0; 128];
    pdu[..8].copy_from_slice(&[1, 0, 128, 0, 128, 0, 0, 0]);
    pdu[10] = cpda;
    pdu[11] = digests.to_wire();
    pdu[12..16].copy_from_slice(&max_h2c_data.to_le_bytes());
    pdu
}

/// A response capsule; `status` is SCT << 8 | SC, with DNR as bit 14.
pub(crate) fn response(digests: Digests, cid: u16, status: u16, result: u64) -> Vec<u8> {
    let mut header = vec![0; 24];
    header[0] = 5;
    header[8..16].copy_from_slice(&result.to_le_bytes());
    header[20..22].copy_from_slice(&cid.to_le_bytes());
    header[22..24].copy_from_slice(&(status << 1).to_le_bytes());
    finish(header, digests, None)
}

fn data_header(kind: u8, flags: u8, cid: u16, ttag: u16, offset: u32, length: u32) -> Vec<u8> {
    let mut header = vec![0; 24];
    header[0] = kind;
    header[1] = flags;
    header[8..10].copy_from_slice(&cid.to_le_bytes());
    header[10..12].copy_from_slice(&ttag.to_le_bytes());
    header[12..16].copy_from_slice(&offset.to_le_bytes());
    header[16..20].copy_from_slice(&length.to_le_bytes());
    header
}

/// LAST.
pub(crate) const LAST: u8 = 4;
/// SUCCESS.
pub(crate) const SUCCESS: u8 = 8;

/// C2HData.
pub(crate) fn data(digests: Digests, cid: u16, offset: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let header = data_header(7, flags, cid, 0, offset, data.len() as u32);
    finish(header, digests, Some(data))
}

/// R2T.
pub(crate) fn r2t(digests: Digests, cid: u16, ttag: u16, offset: u32, length: u32) -> Vec<u8> {
    finish(data_header(9, 0, cid, ttag, offset, length), digests, None)
}

/// C2HTermReq with the beginning of an offending header.
pub(crate) fn terminate(fes: u16) -> Vec<u8> {
    let mut pdu = vec![0; 24 + 72];
    pdu[..8].copy_from_slice(&[3, 0, 24, 0, 96, 0, 0, 0]);
    pdu[8..10].copy_from_slice(&fes.to_le_bytes());
    pdu
}
