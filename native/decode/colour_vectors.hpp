// The vector code of colour.hpp, which includes this once for AVX2 and once for AVX-512: in a
// namespace with the names of core/vector.hpp, `kRows` (words in a vector) and FL_VECTORS (how its
// functions are marked). Hence no include guard.

// Offsets of the constants from 1, 2 and -1, so that they fit 16 bits: 1.402 = 1 + 0.402 and so on.
struct Chroma {
    Vector red, green, blue;  // what to add to luma
};

FL_VECTORS inline Vector half(Vector twice) {  // rounded
    return shift16<1>(add16(twice, all16(1)));
}

FL_VECTORS inline Chroma chroma_terms(Vector cb, Vector cr) {
    const Vector cb2 = add16(cb, cb), cr2 = add16(cr, cr);
    Chroma terms;
    const Vector red = multiply_high(cr2, all16(kRed - 65536));
    terms.red = add16(half(red), cr);
    const Vector blue = multiply_high(cb2, all16(kBlue - 131072));
    terms.blue = add16(half(blue), cb2);
    const Vector weights = all32((65536 - kGreenRed) << 16 | (65536 - kGreenBlue));
    const Vector round = all32(kHalf);
    const Vector low = multiply_add(low16(cb, cr), weights);
    const Vector high = multiply_add(high16(cb, cr), weights);
    const Vector green = pack32(shift32<16>(add32(low, round)), shift32<16>(add32(high, round)));
    terms.green = sub16(green, cr);
    return terms;
}

// Rows of two columns -> pairs. Each lane of a register keeps its rows, so memory holds, with
// sixteen, rows 0-3, 8-11, 4-7, 12-15; the pack that ends the horizontal resize undoes it.
FL_VECTORS inline void store_pairs(Vector left, Vector right, int16_t* out) {
    store(out, low16(left, right));
    store(out + kRows, high16(left, right));
}

// store_pairs of y + t, clamped to [0, 255]: by packing to bytes, which then spread to pairs of
// words.
FL_VECTORS inline void store_sums(Vector y0, Vector t0, Vector y1, Vector t1, int16_t* out) {
    const Vector bytes = pack_bytes(add16(y0, t0), add16(y1, t1));
    const Vector spread =
        all_lanes(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    const Vector pairs = shuffle8(bytes, spread), zero = all16(0);
    store(out, low8(pairs, zero));
    store(out + kRows, high8(pairs, zero));
}

FL_VECTORS inline void pair_to_grey(const uint8_t* const (&y)[2], int rows, int16_t* out) {
    for (int i = 0; i < rows; i += kRows)
        store_pairs(load_samples(y[0] + i), load_samples(y[1] + i), out + 2 * i);
}

FL_VECTORS inline void pair_to_rgb(const uint8_t* const (&y)[2], const int16_t* const (&cb)[2],
                                   const int16_t* const (&cr)[2], int rows,
                                   int16_t* const (&rgb)[3]) {
    for (int i = 0; i < rows; i += kRows) {
        const Vector y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Chroma c0 = chroma_terms(load(cb[0] + i), load(cr[0] + i));
        const Chroma c1 = chroma_terms(load(cb[1] + i), load(cr[1] + i));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

template <bool kUpV>
FL_VECTORS inline Vector across(Vector near3, const int16_t* far, int bias) {
    constexpr int kShift = kUpV ? 4 : 2;
    const Vector less = all16(bias - (128 << kShift));
    return shift16<kShift>(add16(near3, add16(load(far), less)));
}

FL_VECTORS inline Vector three_times(const int16_t* at) {
    const Vector value = load(at);
    return add16(value, add16(value, value));
}

// upsample_across for both columns of a pair, and their colours, without a store in between.
template <bool kUpV>
FL_VECTORS inline void upsampled_to_rgb(const uint8_t* const (&y)[2], const Neighbours& cb,
                                        const Neighbours& cr, int rows, int16_t* const (&rgb)[3]) {
    constexpr int kLeftBias = kUpV ? 8 : 1, kRightBias = kUpV ? 7 : 2;
    for (int i = 0; i < rows; i += kRows) {
        const Vector y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Vector cb3 = three_times(cb.near + i), cr3 = three_times(cr.near + i);
        const Chroma c0 = chroma_terms(across<kUpV>(cb3, cb.left + i, kLeftBias),
                                       across<kUpV>(cr3, cr.left + i, kLeftBias));
        const Chroma c1 = chroma_terms(across<kUpV>(cb3, cb.right + i, kRightBias),
                                       across<kUpV>(cr3, cr.right + i, kRightBias));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

// Chroma as fine as luma: straight from the planes.
FL_VECTORS inline void planes_to_rgb(const uint8_t* const (&y)[2], const uint8_t* const (&cb)[2],
                                     const uint8_t* const (&cr)[2], int rows,
                                     int16_t* const (&rgb)[3]) {
    const Vector centre = all16(128);
    for (int i = 0; i < rows; i += kRows) {
        const Vector y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Chroma c0 = chroma_terms(sub16(load_samples(cb[0] + i), centre),
                                       sub16(load_samples(cr[0] + i), centre));
        const Chroma c1 = chroma_terms(sub16(load_samples(cb[1] + i), centre),
                                       sub16(load_samples(cr[1] + i), centre));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}
