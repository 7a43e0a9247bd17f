//go:build !race

package cdc

const underRace = false
