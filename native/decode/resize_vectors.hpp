// The vector code of resize.hpp that is the same for AVX2 and AVX-512; see colour_vectors.hpp.

template <int kCount>  // 0: any count
FL_VECTORS inline void across(const int16_t* const* pairs, const int16_t* weights, int any_count,
                              int rows, int16_t* out) {
    const int count = kCount ? kCount : any_count;
    const Vector round = all32(1 << (kFirstShift - 1));
    for (int y = 0; y < rows; y += kRows) {
        Vector low = round, high = round;
        for (int t = 0; t < count; ++t) {
            const Vector weight = all32(both_weights(weights + 2 * t));
            const int16_t* at = pairs[t] + 2 * y;
            low = add32(low, multiply_add(load(at), weight));
            high = add32(high, multiply_add(load(at + kRows), weight));
        }
        // Back in the order of rows: see store_pairs.
        store(out + y, pack32(shift32<kFirstShift>(low), shift32<kFirstShift>(high)));
    }
}
