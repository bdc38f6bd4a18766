// What can be wrong with a JPEG, as small positive numbers that cross the C ABI.
//
// Corrupt files are damaged. Unsupported files may be sound, and go to libjpeg-turbo or Pillow.
// Python asks for the sentence through fl_reason and for the kind through fl_is_corrupt.
#pragma once

namespace fl {

enum [[nodiscard]] Status : int {
    kOk = 0,
    kNotJpeg,
    kTruncatedHeader,
    kBadSegment,
    kBadFrame,
    kBadQuantTable,
    kBadHuffmanTable,
    kBadScan,
    kMissingTable,
    kNoImage,
    kTruncatedScan,
    kBadCode,
    kCoefficientOverrun,
    kBadInterval,
    kBadRestart,
    kTooFewBytes,
    kBadProgression,
    kTooMuchWork,
    kBadSeekTable,
    kMissedSeekPoint,
    kLastCorrupt,  // those above are damage, those below a kind of file
    kProgressive,
    kOtherProcess,
    kPrecision,
    kComponents,
    kSampling,
    kColourSpace,
    kMultipleScans,
    kUndefinedHeight,
    kBytesBetweenSegments,
    kTooLarge,
    kStandardTables,
    kMissingScans,
    kCoefficientRange,
    kWideQuantTable,
    kUnalignedOrientation,
    kNoRoomForCodes,
    kLastUnsupported,
    kOutOfMemory,
    kBadBox,
    kStatusCount,
};

inline bool is_corrupt(int status) { return status > kOk && status < kLastCorrupt; }

inline const char* reason(int status) {
    switch (status) {
        case kOk:
            return "decoded";
        case kNotJpeg:
            return "does not begin with a JPEG start marker";
        case kTruncatedHeader:
            return "JPEG ends within its header";
        case kBadSegment:
            return "JPEG header segment has an impossible length";
        case kBadFrame:
            return "JPEG frame header is inconsistent";
        case kBadQuantTable:
            return "JPEG quantisation table is malformed";
        case kBadHuffmanTable:
            return "JPEG Huffman table is malformed";
        case kBadScan:
            return "JPEG scan header is inconsistent";
        case kMissingTable:
            return "JPEG scan uses a table that was not defined";
        case kNoImage:
            return "JPEG holds no image";
        case kTruncatedScan:
            return "JPEG ends before its picture is complete";
        case kBadCode:
            return "JPEG scan holds a bit pattern that is no code";
        case kCoefficientOverrun:
            return "JPEG block holds more than 64 coefficients";
        case kBadInterval:
            return "JPEG scan data do not end where their interval ends";
        case kBadRestart:
            return "JPEG restart markers are out of sequence";
        case kTooFewBytes:
            return "JPEG header claims more pixels than its bytes can hold";
        case kBadProgression:
            return "progressive JPEG sends a coefficient's bits out of order";
        case kTooMuchWork:
            return "progressive JPEG has more scans over its pixels than it has data for";
        case kBadSeekTable:
            return "seek table is damaged or belongs to another JPEG";
        case kMissedSeekPoint:
            return "JPEG scan data do not reach the next point of their seek table";
        case kProgressive:
            return "progressive JPEG";
        case kOtherProcess:
            return "JPEG of an arithmetic, lossless or hierarchical process";
        case kPrecision:
            return "JPEG has other than 8 bits a sample";
        case kComponents:
            return "JPEG has neither 1 nor 3 components";
        case kSampling:
            return "JPEG has an unusual chroma sampling";
        case kColourSpace:
            return "JPEG is stored as RGB, not YCbCr";
        case kMultipleScans:
            return "sequential JPEG in several scans";
        case kUndefinedHeight:
            return "JPEG does not state its height before the scan";
        case kBytesBetweenSegments:
            return "JPEG has stray bytes between its header segments";
        case kTooLarge:
            return "JPEG has more pixels than the native decoder takes";
        case kStandardTables:
            return "JPEG relies on unwritten standard Huffman tables";
        case kMissingScans:
            return "progressive JPEG leaves out the last bits of its coefficients";
        case kCoefficientRange:
            return "JPEG has coefficients outside the range of baseline JPEG";
        case kWideQuantTable:
            return "JPEG has quantisation steps over 255, which baseline JPEG has not";
        case kUnalignedOrientation:
            return "orientation cannot be applied without loss at this size";
        case kNoRoomForCodes:
            return "JPEG has no room in its Huffman tables for the codes of a region";
        case kOutOfMemory:
            return "not enough memory to decode this JPEG";
        case kBadBox:
            return "box does not lie inside the image";
        default:
            return "unknown status";
    }
}

}  // namespace fl
