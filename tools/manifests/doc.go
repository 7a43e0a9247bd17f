// Package manifests has the test that holds deploy/kubernetes to the API's schemas.
package manifests
