"""A gallery in a vector store that other programs search too. Each store is a leaf that imports its
package inside functions."""
