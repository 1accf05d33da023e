package diag

var bundleCodes = []Explanation{}
