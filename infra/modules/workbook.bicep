// The workbook: latency from arrival to job, states, throughput, failures.

param location string
param tags object
param workspaceId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'modzy-relay')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Modzy relay'
    category: 'workbook'
    sourceId: workspaceId
    serializedData: replace(loadTextContent('../workbook.json'), '<workspace id>', workspaceId)
  }
}
