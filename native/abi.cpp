// The C ABI, called through ctypes by fastload/pixels/native.py. No function throws, and none keeps
// a pointer. All are safe to call from several threads at once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/crc32.hpp"
#include "core/read_range.hpp"
#include "core/simd.hpp"
#include "core/status.hpp"
#include "decode/decode.hpp"
#include "seek/collect.hpp"
#include "seek/cut.hpp"
#include "transcode/facts.hpp"

#define FL_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// The calling thread's Workspace, freed when the thread ends; null when there is no memory.
template <typename Workspace>
Workspace* workspace() {
    struct Owner {
        Workspace* workspace = nullptr;
        ~Owner() { delete workspace; }
    };
    thread_local Owner owner;
    if (owner.workspace == nullptr) owner.workspace = new (std::nothrow) Workspace();
    return owner.workspace;
}

// What a check or transcoding says that could not begin.
fl::Status without_memory(fl::Facts& facts) {
    facts = {};
    facts.status = fl::kOutOfMemory;
    fl::describe(fl::kOutOfMemory, {}, facts.reason, sizeof facts.reason);
    return fl::kOutOfMemory;
}

}  // namespace

// `INTERFACE` of native.py. Raise both whenever a function, a struct or a meaning changes.
FL_EXPORT int fl_interface() { return 4; }

// Sentence for a status; never null.
FL_EXPORT const char* fl_reason(int status) { return fl::reason(status); }

// Whether a status means damage rather than a kind of file that is not taken.
FL_EXPORT int fl_is_corrupt(int status) { return fl::is_corrupt(status); }

// 0 portable, 1 AVX2, 2 AVX-512; more than the processor has is lowered. Returns what is now used.
FL_EXPORT int fl_set_simd(int level) {
    const int best = fl::best_simd();
    fl::simd_level().store(level < 0 ? best : level < best ? level : best);
    return fl::simd_level().load();
}

FL_EXPORT int fl_simd(void) { return fl::simd_level().load(); }

// `tables` holds a seek table for each image (0 bytes: none), or is null. `boxes` is [count][4]:
// top, left, height, width; `windows` too, in pixels from the box's corner, or null: all of each
// box. `out` is [count][size][size][3]. What the decoding and the resizing took is added to
// `nanoseconds` [2].
FL_EXPORT void fl_decode_boxes(const uint8_t* buffer, const int64_t* starts, const int64_t* sizes,
                               int64_t count, const uint8_t* tables, const int64_t* table_starts,
                               const int64_t* table_sizes, const int32_t* boxes,
                               const double* windows, const uint8_t* flips, int32_t size,
                               uint8_t* out, int32_t* statuses, int64_t* nanoseconds) {
    fl::DecodeWorkspace* const work = workspace<fl::DecodeWorkspace>();
    fl::Spent spent;
    for (int64_t i = 0; i < count; ++i) {
        const int32_t* const sides = boxes + 4 * i;
        const fl::Box box = {sides[0], sides[1], sides[2], sides[3]};
        fl::Window window = fl::all_of(box);
        if (windows) std::memcpy(&window, windows + 4 * i, sizeof window);
        const uint8_t* const table = tables ? tables + table_starts[i] : nullptr;
        statuses[i] = work ? fl::decode_box(*work, buffer + starts[i], size_t(sizes[i]), table,
                                            tables ? size_t(table_sizes[i]) : 0, box, window, size,
                                            flips[i] != 0, out + i * size * size * 3, spent)
                           : fl::kOutOfMemory;
    }
    nanoseconds[0] += spent.decode;
    nanoseconds[1] += spent.resize;
}

// Height and width of a picture that fl_decode_full takes.
FL_EXPORT int fl_picture_size(const uint8_t* data, size_t bytes, int32_t* height, int32_t* width) {
    fl::DecodeWorkspace* const work = workspace<fl::DecodeWorkspace>();
    if (!work) return fl::kOutOfMemory;
    fl::BoxDecoder decoder(*work);
    if (const fl::Status status = decoder.open(data, bytes)) return status;
    *height = decoder.frame().height;
    *width = decoder.frame().width;
    return fl::kOk;
}

// `out` is [height][width][3], as fl_picture_size said for the same bytes.
FL_EXPORT int fl_decode_full(const uint8_t* data, size_t bytes, int32_t height, int32_t width,
                             uint8_t* out) {
    fl::DecodeWorkspace* const work = workspace<fl::DecodeWorkspace>();
    return work ? fl::decode_full(*work, data, bytes, height, width, out) : fl::kOutOfMemory;
}

FL_EXPORT void fl_crc32_many(const uint8_t* buffer, const int64_t* starts, const int64_t* sizes,
                             int64_t count, uint32_t* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = fl::crc32(buffer + starts[i], size_t(sizes[i]));
}

// Where `paths[i]` is null, `descriptors[i]` is read from `offsets[i]` on; else the file at the
// path, which must be of `sizes[i]` bytes. `complete[i]` says whether all bytes were read.
FL_EXPORT void fl_read_many(const char* const* paths, const int32_t* descriptors,
                            const int64_t* offsets, uint8_t* buffer, const int64_t* starts,
                            const int64_t* sizes, int64_t count, uint8_t* complete) {
    for (int64_t i = 0; i < count; ++i) {
        uint8_t* const out = buffer + starts[i];
        complete[i] = paths[i] ? fl::read_file(paths[i], out, size_t(sizes[i]))
                               : fl::read_range(descriptors[i], offsets[i], out, size_t(sizes[i]));
    }
}

// Asks the kernel for files that will be read soon, in pieces of `step` bytes.
FL_EXPORT void fl_advise_files(const char* const* paths, const int64_t* sizes, int64_t count,
                               int64_t step) {
    for (int64_t i = 0; i < count; ++i) fl::advise_file(paths[i], size_t(sizes[i]), size_t(step));
}

FL_EXPORT int fl_check(const uint8_t* data, size_t size, fl::Facts* facts) {
    fl::TranscodeWorkspace* const work = workspace<fl::TranscodeWorkspace>();
    return work ? fl::check_file(data, size, *work, *facts) : without_memory(*facts);
}

// `orientation` is in [1, 8]. On success facts->bytes holds facts->size bytes, which the caller
// gives to fl_free.
FL_EXPORT int fl_transcode(const uint8_t* data, size_t size, int interval_pixels, int smallest,
                           int orientation, fl::Facts* facts) {
    fl::TranscodeWorkspace* const work = workspace<fl::TranscodeWorkspace>();
    if (!work) return without_memory(*facts);
    const fl::TranscodeOptions options = {interval_pixels, smallest != 0, orientation};
    return fl::transcode_file(data, size, options, *work, *facts);
}

// As fl_check; on success facts->bytes holds the file's seek table of facts->size bytes, which the
// caller gives to fl_free, or 0 bytes where there is none. `interval_pixels` below
// 0: chosen.
FL_EXPORT int fl_seek_points(const uint8_t* data, size_t size, int interval_pixels,
                             uint32_t* file_crc, fl::Facts* facts) {
    fl::SeekWorkspace* const work = workspace<fl::SeekWorkspace>();
    return work ? fl::index_file(data, size, interval_pixels, *file_crc, *work, *facts)
                : without_memory(*facts);
}

// `box` is top, left, height, width, and becomes the place of the same pixels in the region; a
// table of 0 bytes is none. On success *out holds *out_size bytes, which the caller gives to
// fl_free. -1: the box does not lie inside the image.
FL_EXPORT int fl_cut_region(const uint8_t* data, size_t size, const uint8_t* table,
                            size_t table_size, int32_t* box, uint8_t** out, size_t* out_size) {
    *out = nullptr;
    fl::CutWorkspace* const work = workspace<fl::CutWorkspace>();
    if (!work) return fl::kOutOfMemory;
    fl::CutRegion region = {};
    const fl::Status status = fl::RegionCutter(*work).cut(data, size, table, table_size,
                                                          {box[0], box[1], box[2], box[3]}, region);
    work->intervals.trim();
    *out = region.bytes;
    *out_size = region.size;
    box[0] = region.box.top;
    box[1] = region.box.left;
    return status == fl::kBadBox ? -1 : status;
}

FL_EXPORT void fl_free(void* memory) { std::free(memory); }

#ifdef FL_STAGES
// Nanoseconds of this thread's crops in header and unstuffing, Huffman, IDCT, resize and colour.
FL_EXPORT void fl_stages(int64_t* nanoseconds) {
    for (int i = 0; i < fl::kStageCount; ++i) {
        nanoseconds[i] = fl::stages().nanoseconds[i];
        fl::stages().nanoseconds[i] = 0;
    }
}
#endif
